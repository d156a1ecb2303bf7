import numpy as np
import pytest

from echomen_hf.comparison.results import RESULT_COLUMNS, long_table, split_key


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("mae", ("mae", "all")),
        ("mae_hfref", ("mae", "hfref")),
        ("gm_hfmref_ci_low", ("gm_ci_low", "hfmref")),
        ("mae_ci_high", ("mae_ci_high", "all")),
        ("balanced_mae", ("balanced_mae", "all")),
        ("auroc_ef_below_35", ("auroc_ef_below_35", "all")),
        ("n_hfpef", ("n", "hfpef")),
    ],
)
def test_name_of_a_metric(key, parts):
    assert split_key(key) == parts


def test_long_table(make_cell):
    table = long_table([make_cell("echonet", 3, [21.0, 62.0], [20.0, 60.0])])
    assert tuple(table.columns) == RESULT_COLUMNS
    values = table.set_index(["category", "metric"])
    assert values.loc[("all", "mae"), "value"] == 1.5
    assert values.loc[("hfref", "mae"), "value"] == 1
    assert values.loc[("all", "gm"), "value"] == pytest.approx(2**0.5)
    assert (values.loc["all", "n"] == 2).all() and (values.loc["hfpef", "n"] == 1).all()
    assert set(table["method"]) == {"echonet"} and set(table["seed"]) == {3} and set(table["protocol"]) == {"windows"}
    assert "n" not in set(table["metric"])
    assert list(dict.fromkeys(table["category"])) == ["all", "hfref", "hfmref", "hfpef"]


def test_category_without_videos(make_cell):
    table = long_table([make_cell("echonet", 0, [21.0, 62.0], [20.0, 60.0])]).set_index(["category", "metric"])
    assert table.loc[("hfmref", "mae"), "n"] == 0
    assert np.isnan(table.loc[("hfmref", "mae"), "value"])
    assert np.isnan(table.loc[("all", "balanced_mae"), "value"])
