import numpy as np
import pytest
import torch

from echomen_hf.labels import (
    CATEGORY_TITLES,
    HEART_FAILURE_CATEGORIES,
    ExpertWeightTable,
    bin_counts,
    category_masks,
    expert_sample_weights,
    heart_failure_category,
    label_bins,
    num_label_bins,
)


@pytest.mark.parametrize(
    ("ejection_fraction", "category"),
    [
        (0.0, "hfref"),
        (np.nextafter(40.0, 0.0), "hfref"),
        (40.0, "hfmref"),
        (np.nextafter(50.0, 0.0), "hfmref"),
        (50.0, "hfpef"),
        (100.0, "hfpef"),
        (-3.0, "hfref"),
        (104.0, "hfpef"),
    ],
)
def test_category_boundaries_belong_to_the_higher_category(ejection_fraction, category):
    assert heart_failure_category(ejection_fraction) == category
    masks = category_masks([ejection_fraction])
    assert [name for name in HEART_FAILURE_CATEGORIES if masks[name][0]] == [category]


def test_masks_partition_the_samples():
    values = np.random.default_rng(0).uniform(0, 100, size=500)
    masks = category_masks(values)
    assert list(masks) == list(CATEGORY_TITLES)
    assert masks["all"].all()
    np.testing.assert_array_equal(sum(masks[name].astype(int) for name in HEART_FAILURE_CATEGORIES), np.ones(500))
    np.testing.assert_array_equal(masks["hfmref"], (values >= 40) & (values < 50))


def test_categories_are_adjacent_and_cover_the_range():
    intervals = list(HEART_FAILURE_CATEGORIES.values())
    assert intervals[0][0] == 0
    assert intervals[-1][1] == 100
    assert all(left[1] == right[0] for left, right in zip(intervals, intervals[1:], strict=False))


@pytest.mark.parametrize(
    ("label", "width", "expected"),
    [
        (0.0, 1, 0),
        (55.999, 1, 55),
        (56.0, 1, 56),
        (99.5, 1, 99),
        (100.0, 1, 99),
        (-4.0, 1, 0),
        (130.0, 1, 99),
        (49.9, 10, 4),
        (50.0, 10, 5),
        (99.0, 7, 14),
        (2.6, 2.5, 1),
    ],
)
def test_labels_go_to_their_bin_and_outliers_to_the_end_bins(label, width, expected):
    bins = label_bins([label], width)
    assert bins.tolist() == [expected]
    assert bins.dtype == np.int64


@pytest.mark.parametrize(("width", "expected"), [(1, 100), (10, 10), (2.5, 40), (7, 15)])
def test_bins_cover_the_range_also_if_the_width_does_not_divide_it(width, expected):
    assert num_label_bins(width) == expected
    assert bin_counts([0.0, 100.0], width).shape == (expected,)


def test_counts_include_the_end_bins():
    counts = bin_counts([-1.0, 0.4, 30.2, 30.9, 100.0, 250.0])
    assert counts[[0, 30, 99]].tolist() == [2, 2, 2]
    assert counts.sum() == 6


def test_tensors_and_arrays_get_the_same_bins_and_counts():
    labels = np.random.default_rng(1).uniform(-5, 105, size=300)
    from_tensor = label_bins(torch.from_numpy(labels), 2.5)
    assert from_tensor.dtype == torch.int64
    np.testing.assert_array_equal(from_tensor.numpy(), label_bins(labels, 2.5))
    np.testing.assert_array_equal(bin_counts(torch.from_numpy(labels)), bin_counts(labels))


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_bin_width_must_be_positive(width):
    with pytest.raises(ValueError, match="bin_width.*positive"):
        label_bins([50.0], width)


def test_a_label_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="Labels contain NaN"):
        label_bins([50.0, float("nan")])


def test_weights_follow_equation_4():
    # Four samples in one bin and one in another. Unscaled, w = f^-p is 1, 4^-0.5, 4^-1 in the full bin and 1 in the
    # other; the means over the five samples are 1, 0.6 and 0.4.
    weights = expert_sample_weights([50.1, 50.3, 50.5, 50.9, 30.0], num_experts=3, min_count=1)
    full, sparse = [1, 0.5 / 0.6, 0.25 / 0.4], [1, 1 / 0.6, 1 / 0.4]
    np.testing.assert_allclose(weights, [full] * 4 + [sparse], rtol=1e-14)


@pytest.mark.parametrize("num_experts", [1, 2, 3, 5])
def test_every_expert_has_mean_weight_one(num_experts):
    labels = np.random.default_rng(2).normal(56, 12, size=1000)
    weights = expert_sample_weights(labels, num_experts)
    assert weights.shape == (1000, num_experts)
    np.testing.assert_allclose(weights.mean(axis=0), 1, rtol=1e-12)
    np.testing.assert_array_equal(weights[:, 0], np.ones(1000))


def test_exponents_run_evenly_from_0_to_1():
    np.testing.assert_allclose(ExpertWeightTable([50.0], num_experts=5).exponents, [0, 0.25, 0.5, 0.75, 1])


def test_a_single_expert_weighs_all_samples_equally():
    np.testing.assert_array_equal(expert_sample_weights([20.0, 60.0, 60.5], num_experts=1), np.ones((3, 1)))


def test_counts_are_floored_at_one_percent_of_the_samples():
    labels = [60.5] * 399 + [20.5]
    sparse, full = ExpertWeightTable(labels, num_experts=2).weights[[20, 60], 1]
    assert sparse / full == pytest.approx(399 / 4)


def test_min_count_one_is_the_paper_to_the_letter():
    labels = [60.5] * 399 + [20.5]
    sparse, full = ExpertWeightTable(labels, num_experts=2, min_count=1).weights[[20, 60], 1]
    assert sparse / full == pytest.approx(399)


def test_a_high_floor_makes_all_bins_alike():
    weights = expert_sample_weights([60.5] * 30 + [20.5], num_experts=3, min_count=30)
    np.testing.assert_allclose(weights, np.ones((31, 3)), rtol=1e-12)


def test_outliers_share_the_weight_of_the_end_bins():
    table = ExpertWeightTable([0.5, 60.5, 60.5, 99.5], num_experts=3, min_count=1)
    np.testing.assert_array_equal(table([-10.0, 130.0]), table([0.5, 99.5]))


def test_wider_bins_share_their_counts():
    weights = expert_sample_weights([41.0, 48.0, 52.0], num_experts=2, bin_width=10, min_count=1)
    assert weights[0, 1] == weights[1, 1] == pytest.approx(weights[2, 1] / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_get_the_weights_of_arrays_in_their_own_dtype(dtype):
    labels = np.random.default_rng(3).uniform(10, 90, size=200).round(1)
    table = ExpertWeightTable(labels, num_experts=3)
    from_tensor = table(torch.tensor(labels, dtype=torch.float64).to(dtype))
    assert from_tensor.dtype == dtype
    np.testing.assert_allclose(from_tensor.numpy(), table(labels), rtol=1e-6)


def test_whole_number_labels_get_floating_weights():
    weights = expert_sample_weights(torch.tensor([50, 50, 30]), num_experts=2, min_count=1)
    assert weights.dtype == torch.get_default_dtype()
    np.testing.assert_allclose(weights[:, 1], [0.75, 0.75, 1.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": []}, "at least one training label"),
        ({"labels": [50.0], "num_experts": 0}, "num_experts.*at least 1, got 0"),
        ({"labels": [50.0], "min_count": 0}, "min_count.*positive, got 0"),
    ],
)
def test_impossible_tables_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExpertWeightTable(**options)


@pytest.mark.parametrize("labels", [[50.0, float("nan")], torch.tensor([50.0, float("nan")])])
def test_labels_that_are_not_numbers_have_no_bin(labels):
    with pytest.raises(ValueError, match="NaN"):
        label_bins(labels)


def test_ejection_fraction_that_is_not_a_number_has_no_category():
    with pytest.raises(ValueError, match="belongs to no heart-failure category"):
        heart_failure_category(float("nan"))
    with pytest.raises(ValueError, match="belongs to no heart-failure category"):
        category_masks([50.0, float("nan")])


def test_label_on_an_edge_that_binary_numbers_miss():
    assert label_bins([0.3, 0.7, 99.9], 0.1).tolist() == [3, 7, 999]
    assert label_bins(torch.tensor([0.3, 0.7], dtype=torch.float64), 0.1).tolist() == [3, 7]


def test_small_training_set_has_no_bin_heavier_than_one_with_a_single_sample():
    table = ExpertWeightTable([50.5, 50.6, 60.5, 60.6, 60.7, 30.5], num_experts=2)
    assert table.weights[10, 1] == table.weights[30, 1] == table.weights[:, 1].max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_tensors_of_any_kind(dtype):
    labels = torch.tensor([50, 50, 30], dtype=dtype)
    weights = expert_sample_weights(labels, num_experts=2, min_count=1)
    assert weights[:, 1].tolist() == pytest.approx([0.75, 0.75, 1.5], rel=1e-2)
    if labels.is_floating_point():
        assert weights.dtype == dtype
        assert not ExpertWeightTable(labels.requires_grad_(), 2)(labels).requires_grad


def test_exponents_may_be_given():
    labels = np.array([30.2, 60.1, 60.4, 60.8])
    table = ExpertWeightTable(labels, 1, min_count=1, exponents=[1.0])
    np.testing.assert_allclose(table(labels)[:, 0], ExpertWeightTable(labels, 2, min_count=1)(labels)[:, 1])
    with pytest.raises(ValueError, match="`exponents` must hold one number for each of 2 experts"):
        ExpertWeightTable(labels, 2, exponents=[1.0])
