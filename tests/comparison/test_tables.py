import re

import pandas as pd
import pytest

from echomen_hf.comparison.published import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from echomen_hf.comparison.tables import (
    ERROR_COLUMNS,
    calibration_table,
    measured_table,
    published_table,
    ranked,
    save_tables,
    to_html,
    to_latex,
    to_markdown,
)


NAN = float("nan")


def cells_of(table, title):
    return list(zip(table.texts.loc[title], table.ranks.loc[title]))


def test_best_and_second():
    assert ranked([(4.0, NAN), (3.0, 0.25), (5.0, NAN)]) == [("4.00", 2), ("3.00 ± 0.25", 1), ("5.00", 0)]


def test_what_is_printed_alike_is_ranked_alike():
    assert [rank for _, rank in ranked([(3.004, NAN), (3.0, NAN), (3.1, NAN)])] == [1, 1, 0]
    assert [rank for _, rank in ranked([(3.0, NAN), (3.104, NAN), (3.1, NAN)])] == [1, 2, 2]


def test_the_nearest_to_a_target_is_the_best():
    assert [rank for _, rank in ranked([(-0.5, NAN), (0.4, NAN), (1.0, NAN)])] == [2, 1, 0]
    assert [rank for _, rank in ranked([(0.8, NAN), (1.2, NAN), (0.5, NAN)], target=1.0)] == [1, 1, 0]


def test_bias_and_slope(results):
    rows = [("echomen", seed, "all", "slope", 0.8 + seed / 5, 10, "windows") for seed in (0, 1)]
    rows += [("echomen", 0, "hfref", "bias", 3.0, 3, "windows")]
    table = calibration_table(pd.DataFrame(rows, columns=results.columns), {"echomen": "EchoMEN"}, caption="")
    assert list(table.texts.columns)[1:3] == [("Bias", "HFrEF"), ("Bias", "HFmrEF")]
    assert list(table.texts.loc["EchoMEN"]) == ["–", "3.00", "–", "–", "0.90 ± 0.14"]


def test_unknown_value_has_no_place():
    assert ranked([(NAN, NAN), (3.0, NAN), (4.0, NAN)]) == [("–", 0), ("3.00", 1), ("4.00", 2)]
    assert ranked([(NAN, NAN), (3.0, NAN)]) == [("–", 0), ("3.00", 0)]


@pytest.fixture
def results():
    """Two methods with two seeds, of which one is better on all videos, and no video with HFmrEF."""
    rows = []
    counts = {"all": 10, "hfref": 3, "hfmref": 0, "hfpef": 7}
    for method, offset in (("echonet", 1.0), ("echomen", 0.0)):
        for seed in (0, 1):
            for metric, category in (*ERROR_COLUMNS, ("balanced_mae", "all")):
                value = NAN if category == "hfmref" or metric == "balanced_mae" else 4.0 + offset + seed
                rows.append((method, seed, category, metric, value, counts[category], "windows"))
    return pd.DataFrame(rows, columns=["method", "seed", "category", "metric", "value", "n", "protocol"])


@pytest.fixture
def table(results):
    significance = pd.DataFrame(
        [
            ("echonet", "all", "mae", 0.0004),
            ("echonet", "hfref", "mae", 0.5),
            ("echonet", "all", "balanced_mae", 0.25),
        ],
        columns=["method", "category", "metric", "p_value"],
    )
    rows = {"sqinv": "SQInv", "echonet": "EchoNet & <friends>", "echomen": "EchoMEN"}
    return measured_table(results, rows, caption="100 % SYNTHETIC.", notes=["A note."], significance=significance)


def test_mean_and_standard_deviation_over_seeds(table):
    assert list(table.texts.index) == ["EchoNet & <friends>", "EchoMEN"]  # no row for a method without results
    echonet, echomen = cells_of(table, "EchoNet & <friends>"), cells_of(table, "EchoMEN")
    assert echonet[:4] == [("5.50 ± 0.71", 2), ("5.50 ± 0.71", 2), ("–", 0), ("5.50 ± 0.71", 2)]
    assert echomen[0] == ("4.50 ± 0.71", 1)
    columns = list(table.texts.columns)
    assert columns[:3] == [("MAE", "All (n=10)"), ("MAE", "HFrEF (n=3)"), ("MAE", "HFmrEF (n=0)")]
    assert columns[4] == ("GM", "All (n=10)")
    assert columns[-2:] == [("p", "MAE, All"), ("p", "Balanced MAE")]
    assert (echonet[-2:], echomen[-2:]) == ([("<0.001", 0), ("0.250", 0)], [("–", 0), ("–", 0)])


def test_markdown(table):
    text = to_markdown(table)
    assert text.startswith("**100 % SYNTHETIC.**\n\n| Method ")
    echonet, echomen = ([cell.strip() for cell in line.split("|")] for line in text.splitlines()[4:6])
    assert echonet[1:4] == ["EchoNet & <friends>", "<u>5.50 ± 0.71</u>", "<u>5.50 ± 0.71</u>"]
    assert echomen[1:5] == ["EchoMEN", "**4.50 ± 0.71**", "**4.50 ± 0.71**", "–"]
    assert text.endswith("\n\nA note.")


def test_latex(table):
    text = to_latex(table)
    assert r"\textbf{4.50 $\pm$ 0.71}" in text and r"\underline{5.50 $\pm$ 0.71}" in text
    assert r"\multicolumn{4}{c}{MAE} & \multicolumn{4}{c}{GM}" in text
    assert r"EchoNet \& $<$friends> & " in text
    assert r"\caption{100 \% SYNTHETIC.}" in text
    assert text.startswith("% A note.\n\\begin{table}")


def test_html(table):
    text = to_html([table])
    rules = re.findall(r"(#T_table_0_row[^{]*?) \{\s*([^;}]+)", text)
    marked = {name: style for names, style in rules for name in names.split(", ")}
    assert marked["#T_table_0_row0_col0"] == "text-decoration: underline"
    assert marked["#T_table_0_row1_col0"] == "font-weight: bold"
    assert "#T_table_0_row0_col2" not in marked
    assert "EchoNet &amp; &lt;friends&gt;" in text
    assert "SYNTHETIC" in text and "A note." in text
    assert "http" not in text


def test_same_table_same_bytes(table, tmp_path):
    def saved():
        save_tables(tmp_path / "table", [table, table])
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    first = saved()
    assert first.keys() == {"table.md", "table.tex", "table.html"}
    assert saved() == first


def test_settings_are_shown_with_what_they_are_chosen_by(results):
    table = measured_table(results, {"echomen": "3"}, caption="", validation=results)
    assert list(table.texts.columns)[:2] == [("VAL", "MAE"), ("VAL", "Balanced MAE")]


def test_published_numbers_have_the_papers_marks():
    table = published_table(PUBLISHED_TABLE_1, 1)
    assert "As published, on EchoNet-Dynamic" in table.caption
    assert len(table.texts) == 10
    assert list(table.ranks.loc["EchoMEN"]) == [1, 1, 1, 2, 1, 1, 1, 1]
    assert cells_of(table, "RankSim")[3:5] == [("3.43", 1), ("2.49", 2)]
    assert cells_of(table, "DDIR")[5] == ("3.68", 2)


def test_published_ablations_lie_above_the_whole_method():
    ours = PUBLISHED_TABLE_2["echomen"]
    assert ours == PUBLISHED_TABLE_1["echomen"]
    for name, values in PUBLISHED_TABLE_2.items():
        for column in (("mae", "all"), ("gm", "all")):
            assert values[column] >= ours[column], name
