from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from echomen_hf.comparison import paired_bootstrap, significance_table, two_way_test


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


def drawn(rng, shape=(5, 300), by_seed=0.0, by_video=1.0, rest=2.0):
    """Differences, (S, N), whose mean is zero but for chance."""
    seeds, videos = (by_seed * rng.normal(size=(shape[0], 1)), by_video * rng.normal(size=(1, shape[1])))
    return seeds + videos + rest * rng.normal(size=shape)


def test_variance_of_drawing_seeds_and_videos_anew():
    """Drawn by hand, S - 1 of S seeds with a share of the rest that is small here; two groups of equal weight."""
    rng = np.random.default_rng(0)
    groups = [drawn(rng, (6, size), 0.5, 1.0, 0.3) for size in (80, 40)]
    means = []
    for _ in range(4000):
        seeds = rng.integers(6, size=5)
        videos = [rng.integers(group.shape[1], size=group.shape[1]) for group in groups]
        means.append(np.mean([group[seeds][:, of_group].mean() for group, of_group in zip(groups, videos)]))
    test = two_way_test(groups)
    assert test.mean == pytest.approx(np.mean([group.mean() for group in groups]))
    # Between the normal distribution's 1.96 and the 2.57 of five degrees of freedom.
    assert 1.96 < (test.high - test.mean) / np.std(means) < 2.7


def test_without_differences_between_videos_it_is_a_t_test_over_seeds():
    by_seed = np.array([0.3, 1.2, 0.4, 0.9])
    test = two_way_test([np.repeat(by_seed[:, None], 7, axis=1)])
    expected = ttest_1samp(by_seed, 0)
    interval = expected.confidence_interval(0.95)
    assert test.p_value == pytest.approx(expected.pvalue)
    assert (test.low, test.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    others = np.array([0.1, 0.8, -0.4])
    unpaired = two_way_test(*([np.repeat(values[:, None], 7, axis=1)] for values in (by_seed, others)))
    assert unpaired.p_value == pytest.approx(ttest_ind(by_seed, others, equal_var=False).pvalue)


def test_without_differences_between_seeds_it_is_a_t_test_over_videos():
    by_video = np.random.default_rng(1).normal(0.2, 1, 60)
    test = two_way_test([np.tile(by_video, (3, 1))])
    assert test.p_value == pytest.approx(ttest_1samp(by_video, 0).pvalue)


def test_pairs_of_seeds_take_out_what_a_seed_does_to_both():
    rng = np.random.default_rng(2)
    common = rng.normal(0, 2, size=(5, 1))
    one, other = (drawn(rng) + common for _ in range(2))
    paired, unpaired = two_way_test([one - other]), two_way_test([one], [other])
    assert paired.mean == pytest.approx(unpaired.mean)
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def share_significant(test, size, count=400, **effects):
    rng = np.random.default_rng(3)
    return np.mean([test(drawn(rng, size, **effects)) < 0.05 for _ in range(count)])


@pytest.mark.parametrize("size", [(3, 110), (5, 110), (5, 900)])
@pytest.mark.parametrize("by_seed", [0.0, 0.4])
def test_methods_that_differ_by_chance_only(size, by_seed):
    """A video test takes the luck of a seed for a method; the two-way test finds about the 5 % that it may."""
    found = share_significant(lambda values: two_way_test([values]).p_value, size, by_seed=by_seed)
    assert found <= 0.085  # 5 %, and three standard errors of 400 trials
    over_videos = share_significant(lambda values: ttest_1samp(values.mean(axis=0), 0).pvalue, size, by_seed=by_seed)
    assert over_videos <= 0.085 if by_seed == 0 else over_videos >= 0.15


def test_a_true_difference_is_found():
    rng = np.random.default_rng(4)
    differences = [drawn(rng, (5, 900), by_seed=0.2) + 0.5 for _ in range(200)]
    found = [two_way_test([values]).p_value < 0.05 for values in differences]
    assert np.mean(found) > 0.85


def test_one_seed_or_one_video_in_a_group_has_no_two_way_p_value():
    for groups in ([np.ones((1, 4))], [np.ones((3, 4)), np.ones((3, 1))]):
        test = two_way_test(groups)
        assert test.mean == 1 and np.isnan(test.p_value) and np.isnan(test.low)
    assert np.isnan(two_way_test([np.ones((3, 0))]).mean)


def test_what_never_varies():
    assert two_way_test([np.zeros((2, 3))]).p_value == 1
    assert two_way_test([np.ones((2, 3))]).p_value == 0


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
        make_cell("ddir", 0, errors(1, 2, 1, 1, 1, 3), REFERENCES),
        make_cell("ddir", 1, errors(1, 1, 2, 1, 1, 1), REFERENCES),
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
    assert np.isnan(rows.loc[("mae", "all"), "p_value"])
    assert rows.loc[("mae", "all"), "p_videos"] == 1


def test_p_values_are_of_both_tests(table):
    row = table.loc[("echonet", "mae", "all")]
    differences = np.array([[1, 1, 1, 1, -0.5, -0.5], [3, 3, 3, -1, 0.5, 0.5]])
    assert row["p_value"] == two_way_test([differences]).p_value
    assert row["p_videos"] == paired_bootstrap([differences.mean(axis=0)], num_resamples=500).p_value
    assert row["p_videos"] < row["p_value"]


def test_q_values_are_those_of_benjamini_and_hochberg(table):
    p = [table.loc[(name, "mae", "all"), "p_value"] for name in ("echonet", "ddir")]
    q = [table.loc[(name, "mae", "all"), "q_value"] for name in ("echonet", "ddir")]
    # Of two tests the smaller p-value is doubled, the larger stays.
    assert max(q) == max(p) and min(q) == pytest.approx(min(2 * min(p), max(p)))
    assert np.isnan(table.loc[("sqinv", "mae", "all"), "q_value"])


def test_settings_of_sweeps_do_not_weigh_on_the_methods(make_cell):
    def setting(name, *errors):
        cells = [make_cell("echomen", seed, np.array(REFERENCES) + errors, REFERENCES) for seed in (0, 1)]
        return [replace(cell, method=name) for cell in cells]

    cells = [
        *setting("echomen", 1, 1, 1, 1, 1, 1),
        *setting("echonet", 2, 3, 1, 2, 0.5, 2),
        *setting("echomen_contrastive_weight_5", 1, 1, 1, 1.5, 1, 0.9),
        *setting("echomen_contrastive_weight_7", 1, 1, 1.1, 1, 0.8, 1),
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
