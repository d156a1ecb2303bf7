import numpy as np
import pytest

from benchmarks.speed.errors import (
    change_of_ejection_fraction,
    change_of_first_step,
    change_of_video_mean,
    largest_change_by_start,
)


# Two clips of the full-size network, then three of the trained one, whose labels are 50, 60 and 40.
EXPECTED = np.array([55.0, 56.0, 52.0, 57.0, 40.0])
OWN = np.array([55.5, 56.0, 53.0, 58.0, 41.5])
LABELS = np.array([50.0, 60.0, 40.0])


def test_first_step_is_found_by_its_loss_unless_gradients_go_elsewhere():
    expected = np.array([10.0, 3.0, 4.0])
    found = change_of_first_step(expected, np.array([10.5, 3.0, 4.5]))
    assert found == {"error": 0.5, "change_of_gradients": pytest.approx(0.1)}
    assert change_of_first_step(expected, np.array([10.0, 0.0, 0.0]))["error"] == np.inf


def test_mean_change_and_mae_are_those_of_the_trained_checkpoint():
    found = change_of_ejection_fraction(2, LABELS, largest=False)(EXPECTED, OWN)
    assert found["error"] == found["mean_change"] == pytest.approx((1 + 1 + 1.5) / 3)
    assert found["largest_change"] == 1.5
    assert found["largest_change_full_size"] == 0.5
    # Errors were 2, 3 and 0; now they are 3, 2 and 1.5.
    assert found["mae"] == pytest.approx(6.5 / 3)
    assert found["rise_of_mae"] == pytest.approx(1.5 / 3)


def test_largest_change_counts_both_networks():
    compare = change_of_ejection_fraction(2, LABELS, largest=True)
    assert compare(EXPECTED, OWN)["error"] == 1.5
    assert compare(EXPECTED, EXPECTED + [0, -7, 0, 0, 0])["error"] == 7


def test_without_a_trained_checkpoint_the_full_size_network_counts():
    found = change_of_ejection_fraction(2, np.empty(0), largest=False)(EXPECTED[:2], OWN[:2])
    assert found == {"error": 0.25, "largest_change_full_size": 0.5}


NAN = np.nan
BY_START = np.array([[50.0, 52.0, 54.0], [40.0, 44.0, NAN]])


def test_starts_are_compared_one_by_one():
    assert largest_change_by_start(BY_START, BY_START + [[0, 0, 0.5], [0, -1, 0]])["error"] == 1
    assert np.isnan(largest_change_by_start(BY_START, np.array([[50.0, NAN, 54.0], [40.0, 44.0, NAN]]))["error"])


def test_video_means_are_compared_over_whatever_clips_there_are():
    every_second = np.array([[50.0, NAN, 54.0], [40.0, NAN, NAN]])
    assert change_of_video_mean(BY_START, every_second) == {"error": 2.0, "largest_change": 2.0}
    assert change_of_video_mean(BY_START[:1], every_second[:1] + 1)["error"] == 1.0
