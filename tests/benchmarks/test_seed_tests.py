import pandas as pd
import pytest
from scipy.stats import ttest_rel

from benchmarks import seed_tests
from echomen_hf.comparison.results import FinishedCell
from echomen_hf.metrics import ef_regression_metrics
from helpers.documents import ROOT


RUN = ROOT / "docs" / "results" / "more_videos"


def rows_of(printed):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in lines[2:]}


def make_cell(method, seed, error):
    """A cell whose predictions are all too high by the same error."""
    table = pd.DataFrame({"FileName": ["a", "b", "c"], "EF": [30.0, 45.0, 60.0]})
    table["EF_pred"] = table["EF"] + error
    document = {"metrics": ef_regression_metrics(table["EF_pred"], table["EF"]), "protocol": "windows"}
    return FinishedCell(method, seed, document, table, {})


def test_seeds_are_paired():
    errors = {"echonet": [2.0, 4.0, 3.0], "echomen": [1.0, 1.5, 2.5]}
    cells = [make_cell(method, *pair) for method, by_seed in errors.items() for pair in enumerate(by_seed)]
    row = rows_of(seed_tests.seed_test_table(cells, "echonet"))["MAE All"]
    assert row[:4] == ["3.00", "1.67", "1.33", f"{ttest_rel(*errors.values()).pvalue:.3f}"]
    with pytest.raises(ValueError, match=r"seeds \[0, 1, 2\] in common; at least two"):
        seed_tests.seed_test_table(cells, "echonet", [1])


def test_the_claims_on_the_page_are_what_the_command_prints(capsys):
    printed = []
    for seeds in ([], ["--seeds", "0", "2", "3", "4", "5"]):
        seed_tests.main([str(RUN), *seeds])
        printed.append(rows_of(capsys.readouterr().out))
    page = rows_of((RUN.parent / "README.md").read_text().split("printed by")[1].split("\n\n- ")[0])
    assert len(page) == 5
    for title, (own, reference, over_seeds, over_videos, without) in page.items():
        whole, part = (rows.get(title) or rows[f"{title} All"] for rows in printed)
        assert (own, reference, over_seeds, over_videos, without) == (*whole[:2], *whole[3:5], part[3])
