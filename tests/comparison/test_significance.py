from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from echomen_hf.comparison import paired_bootstrap, significance_table


def test_p_value_by_hand():
    """Two videos: the mean of a resample is -1, 1 or 3 with probability 1/4, 1/2, 1/4, so p is twice 1/4."""
    test = paired_bootstrap([[-1.0, 3.0]], num_resamples=20_000)
    assert test.mean == 1
    assert test.p_value == pytest.approx(0.5, abs=0.02)
    assert (test.low, test.high) == (-1, 3)


def test_methods_that_never_differ():
    assert paired_bootstrap([np.zeros(5)], num_resamples=100).p_value == 1


def test_method_that_is_always_worse_has_the_smallest_p_value():
    assert paired_bootstrap([np.full(5, 2.0)], num_resamples=99).p_value == 2 / 100


def test_both_directions_count_alike():
    differences = np.random.default_rng(0).normal(0.2, 1, 80)
    one, other = (paired_bootstrap([sign * differences], num_resamples=4000) for sign in (1, -1))
    assert one.p_value == pytest.approx(other.p_value, abs=0.01)
    assert one.mean == -other.mean


def test_large_samples_agree_with_the_t_test():
    differences = np.random.default_rng(2).normal(0.15, 1, 200)
    expected = ttest_1samp(differences, 0)
    test = paired_bootstrap([differences], num_resamples=20_000)
    assert 0.02 < expected.pvalue < 0.2
    assert test.p_value == pytest.approx(expected.pvalue, abs=0.01)
    interval = expected.confidence_interval(0.95)
    assert (test.low, test.high) == (pytest.approx(interval.low, abs=0.01), pytest.approx(interval.high, abs=0.01))


def test_groups_count_alike_whatever_their_size():
    assert paired_bootstrap([np.zeros(90), [3.0, 5.0]], num_resamples=50).mean == 2


def test_group_without_videos_or_a_single_video_has_no_p_value():
    assert np.isnan(paired_bootstrap([[]]).p_value)
    assert np.isnan(paired_bootstrap([np.ones(4), []]).p_value)
    single = paired_bootstrap([[2.0]])
    assert single.mean == 2 and np.isnan(single.p_value)


def test_same_seed_same_result():
    differences = np.random.default_rng(2).normal(size=30)
    assert paired_bootstrap([differences], seed=3) == paired_bootstrap([differences], seed=3)


REFERENCES = [20.0, 30.0, 45.0, 60.0, 65.0, 70.0]


@pytest.fixture
def table(make_cell):
    def errors(*values):
        return np.array(REFERENCES) + values

    cells = [
        # Absolute errors, averaged over two seeds: 3, 3, 3, 1, 1, 1.
        make_cell("echonet", 0, errors(2, -2, 2, 2, 0.5, 0.5), REFERENCES),
        make_cell("echonet", 1, errors(4, 4, -4, 0, 1.5, -1.5), REFERENCES),
        make_cell("sqinv", 0, errors(1, 1, 1, 1, 1, 1), REFERENCES),
        make_cell("echomen", 0, errors(1, 1, 1, 1, 1, 1), REFERENCES),
        make_cell("echomen", 1, errors(1, -1, 1, 1, -1, 1), REFERENCES),
    ]
    return significance_table(cells, num_resamples=500).set_index(["method", "metric", "category"])


def test_differences_are_averaged_over_seeds(table):
    rows = table.loc["echonet"]
    assert rows.loc[("mae", "all"), "difference"] == pytest.approx(1.0)
    assert rows.loc[("mae", "hfref"), "difference"] == pytest.approx(2.0)
    assert rows.loc[("mae", "hfpef"), "difference"] == pytest.approx(0.0)
    # HFrEF 2, HFmrEF 2, HFpEF 0.
    assert rows.loc[("balanced_mae", "all"), "difference"] == pytest.approx(4 / 3)
    # The GM of |errors| 2 and 4 is the square root of 8, EchoMEN's is 1.
    assert rows.loc[("gm", "hfref"), "difference"] == pytest.approx(8**0.5 - 1)
    assert set(rows["seeds"]) == {2}
    assert rows.loc[("mae", "hfpef"), "n"] == 3


def test_common_seeds_only(table):
    rows = table.loc["sqinv"]
    assert set(rows["seeds"]) == {1}
    assert rows.loc[("mae", "all"), "difference"] == 0
    assert rows.loc[("mae", "all"), "p_value"] == 1


def test_q_values_are_those_of_benjamini_and_hochberg(table):
    p = table.loc[("echonet", "mae", "all"), "p_value"]
    # Of two tests the smaller p-value is doubled, the larger stays.
    assert table.loc[("echonet", "mae", "all"), "q_value"] == pytest.approx(min(1, 2 * p))
    assert table.loc[("sqinv", "mae", "all"), "q_value"] == 1


def test_settings_of_sweeps_do_not_weigh_on_the_methods(make_cell):
    def setting(name, *errors):
        cell = make_cell("echomen", 0, np.array(REFERENCES) + errors, REFERENCES)
        return replace(cell, method=name)

    cells = [
        make_cell("echomen", 0, np.array(REFERENCES) + 1, REFERENCES),
        make_cell("echonet", 0, np.array(REFERENCES) + [2, 3, 1, 2, 0.5, 2], REFERENCES),
        setting("echomen_contrastive_weight_5", 1, 1, 1, 1.5, 1, 0.9),
        setting("echomen_contrastive_weight_7", 1, 1, 1.1, 1, 0.8, 1),
    ]
    table = significance_table(cells, num_resamples=500)
    tests = table[(table["metric"] == "mae") & (table["category"] == "all")].set_index("method")
    assert tests.loc["echonet", "q_value"] == tests.loc["echonet", "p_value"] < 0.1
    swept = tests.drop("echonet")
    assert len(swept) == 2
    assert swept["q_value"].min() == pytest.approx(min(2 * swept["p_value"].min(), swept["p_value"].max()))


def test_nothing_to_compare_with(make_cell):
    assert significance_table([make_cell("echonet", 0, REFERENCES, REFERENCES)]).empty


def test_no_resamples_no_table(make_cell):
    cells = [make_cell(name, 0, REFERENCES, REFERENCES) for name in ("echonet", "echomen")]
    assert significance_table(cells, num_resamples=0).empty
