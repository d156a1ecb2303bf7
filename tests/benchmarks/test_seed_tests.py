import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel

from benchmarks import seed_tests
from echomen_hf.comparison.results import FinishedCell
from echomen_hf.metrics import ef_regression_metrics
from helpers.documents import ROOT


RUN = ROOT / "docs" / "results" / "more_videos"


def rows_of(printed):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in lines[2:]}


def make_cell(method, seed, error):
    """A cell whose predictions are too high by an error, or by one per video."""
    table = pd.DataFrame({"FileName": list("abcdef"), "EF": [30.0, 35.0, 45.0, 48.0, 60.0, 65.0]})
    table["EF_pred"] = table["EF"] + error
    document = {"metrics": ef_regression_metrics(table["EF_pred"], table["EF"]), "protocol": "windows"}
    return FinishedCell(method, seed, document, table, {})


def test_seeds_are_paired():
    errors = {"echonet": [2.0, 4.0, 3.0], "echomen": [1.0, 1.5, 2.5]}
    cells = [make_cell(method, *pair) for method, by_seed in errors.items() for pair in enumerate(by_seed)]
    row = rows_of(seed_tests.seed_test_table(cells, "echonet"))["MAE All"]
    assert row[:3] == ["3.00", "1.67", "1.33"]
    # All videos have the same errors, so that seeds alone decide.
    assert row[3] == row[5] == f"{ttest_rel(*errors.values()).pvalue:.3f}"
    assert row[4] == f"{ttest_ind(*errors.values(), equal_var=False).pvalue:.3f}"
    with pytest.raises(ValueError, match=r"seeds \[0, 1, 2\] in common; at least two"):
        seed_tests.seed_test_table(cells, "echonet", [1])


def test_every_division_once():
    assert list(seed_tests.divisions([3, 1, 2, 0])) == [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]
    assert len(list(seed_tests.divisions(range(5)))) == 10
    some = list(seed_tests.divisions(range(10), 20))
    assert len(some) == 20 and some == list(seed_tests.divisions(range(10), 20))


def test_halves_of_one_method_seldom_differ():
    """The luck of a seed is the only difference; a test over videos takes it for one of methods."""
    rng = np.random.default_rng(0)
    luck = [3.0, 3.1, 3.2, 3.3, 3.4]
    cells = [make_cell("echonet", seed, value + rng.normal(0, 0.01, 6)) for seed, value in enumerate(luck)]
    cells += [make_cell("sqinv", seed, 1.0) for seed in range(3)]  # too few to divide
    printed = seed_tests.placebo_table(cells, [])
    assert printed.startswith("Divisions of the seeds of echonet that")
    row = rows_of(printed)["MAE All"]
    # Of the ten, {0, 1} against {2, 3, 4} alone has a t above 3.18, that of three degrees of freedom.
    assert row[0] == "10" and float(row[1].split()[0]) <= 10 and float(row[2].split()[0]) >= 50
    with pytest.raises(ValueError, match="No method has the four seeds"):
        seed_tests.placebo_table(cells, ["sqinv"])


def test_other_labels_of_the_same_videos(tmp_path):
    cells = [make_cell("echonet", 0, 2.0)]
    labels = pd.DataFrame({"FileName": cells[0].predictions["FileName"], "EF": cells[0].predictions["EF"] + 2})
    labels[::-1].to_csv(tmp_path / "FileList.csv", index=False)
    (exact,) = seed_tests.with_labels(cells, tmp_path / "FileList.csv")
    assert seed_tests.absolute_errors([exact])["echonet"][0] == pytest.approx([0] * 6)
    labels[1:].to_csv(tmp_path / "FileList.csv", index=False)
    with pytest.raises(ValueError, match="lacks 1 of the videos, such as a"):
        seed_tests.with_labels(cells, tmp_path / "FileList.csv")


def test_the_claims_on_the_page_are_what_the_command_prints(capsys):
    printed = []
    for seeds in ([], ["--seeds", "0", "2", "3", "4", "5"]):
        seed_tests.main([str(RUN), *seeds])
        printed.append(rows_of(capsys.readouterr().out))
    page = rows_of((RUN.parent / "earlier.md").read_text().split("printed by")[1].split("\n\n- ")[0])
    assert len(page) == 5
    for title, (own, reference, over_seeds, over_videos, without) in page.items():
        whole, part = (rows.get(title) or rows[f"{title} All"] for rows in printed)
        assert (own, reference, over_seeds, over_videos, without) == (*whole[:2], *whole[5:7], part[5])


def test_the_primary_comparison_on_the_page_is_what_the_command_prints(capsys):
    seed_tests.main([str(RUN.parent / "6000_videos")])
    rows, page = rows_of(capsys.readouterr().out), (RUN.parent / "README.md").read_text()
    own, reference, difference, p_value = rows["Balanced MAE"][:4]
    assert f"EchoMEN is {reference}, that of EchoNet {own} (difference {difference}," in page
    assert f"p = {p_value})" in page
    assert f"A difference of {rows['Balanced MAE'][-1]} from EchoNet" in page
    assert "On HFpEF, EchoMEN has {1} and EchoNet {0}".format(*rows["MAE HFpEF"]) in page


@pytest.mark.slow
def test_the_divisions_on_the_page_are_what_the_command_prints(capsys):
    seed_tests.main([str(RUN.parent / "6000_videos"), "--placebo"])
    rows, page = rows_of(capsys.readouterr().out), (RUN.parent / "README.md").read_text()
    shares = {title: row[1].removesuffix(" %") for title, row in rows.items()}
    assert f"calls {shares['MAE All']} % of {rows['MAE All'][0]} divisions" in page
    by_category = [shares[f"MAE {name}"] for name in ("HFrEF", "HFmrEF", "HFpEF")]
    assert "{}, {} and {} % by MAE on HFrEF, HFmrEF and HFpEF".format(*by_category) in page
    assert f"and {shares['Balanced MAE']} % by balanced MAE" in " ".join(page.split())
    over_videos = [float(row[2].removesuffix(" %")) for row in rows.values()]
    assert f"{min(over_videos):.0f} to {max(over_videos):.0f} % of them" in page
