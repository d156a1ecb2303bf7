import numpy as np

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
