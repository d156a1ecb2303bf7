import numpy as np
import pytest

from echomen_hf.labels import HEART_FAILURE_CATEGORIES, category_masks
from echomen_hf.simulation.ejection_fraction_distribution import TRAIN_COUNTS, ejection_fraction_at


def test_each_ten_points_hold_their_share_of_echonet_dynamic():
    values = ejection_fraction_at((np.arange(7465) + 0.5) / 7465)
    counts, _ = np.histogram(values, bins=np.arange(0, 101, 10))
    assert np.abs(counts - TRAIN_COUNTS).max() <= 1


def test_mean_spread_and_range_are_those_of_echonet_dynamic():
    values = ejection_fraction_at((np.arange(7465) + 0.5) / 7465)
    assert abs(values.mean() - 55.8) < 0.5
    assert abs(values.std() - 12.4) < 0.5
    assert values.min() >= 6.9
    assert values.max() <= 97
    assert len(np.unique(values)) == len(values)


def test_every_category_is_as_likely_if_asked_for():
    values = ejection_fraction_at((np.arange(900) + 0.5) / 900, "categories")
    shares = [masks.mean() for name, masks in category_masks(values).items() if name in HEART_FAILURE_CATEGORIES]
    assert shares == pytest.approx([1 / len(HEART_FAILURE_CATEGORIES)] * len(HEART_FAILURE_CATEGORIES), abs=0.01)


def test_a_category_has_the_distribution_of_echonet_dynamic_within_itself():
    quantiles = (np.arange(9000) + 0.5) / 9000
    balanced, echonet = ejection_fraction_at(quantiles, "categories"), ejection_fraction_at(quantiles)
    for name in HEART_FAILURE_CATEGORIES:
        shares = [0.1, 0.5, 0.9]
        found = np.quantile(balanced[category_masks(balanced)[name]], shares)
        assert found == pytest.approx(np.quantile(echonet[category_masks(echonet)[name]], shares), abs=0.1), name


def test_a_uniform_distribution_is_even():
    values = ejection_fraction_at((np.arange(900) + 0.5) / 900, "uniform")
    assert np.ptp(np.diff(values)) < 1e-9
    assert 8 <= values.min() < values.max() <= 85


def test_a_distribution_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="'normal': choose echonet, uniform or categories"):
        ejection_fraction_at(0.5, "normal")
