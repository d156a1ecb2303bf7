import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from echomen_hf.methods.losses.dist_loss import (
    DistLoss,
    distribution_distance,
    expected_labels,
    silverman_bandwidth,
)


TRAIN_LABELS = np.array([15.0, 22.3, 30.0, 41.0, 52.0, 55.2, 58.0, 61.0])


@pytest.mark.parametrize("count", [1, 4, 7])
@pytest.mark.parametrize("bandwidth", [0.3, 2.5])
def test_expected_labels_are_quantiles_of_the_smoothed_labels(count, bandwidth):
    found = expected_labels(TRAIN_LABELS, count, bandwidth)
    shares = [sum(NormalDist(y, bandwidth).cdf(x) for y in TRAIN_LABELS) / len(TRAIN_LABELS) for x in found]
    assert shares == pytest.approx([(i - 0.5) / count for i in range(1, count + 1)], abs=1e-10)


def test_worked_by_hand():
    # Half of the labels at 40 and half at 60, hardly smoothed: a batch of four is expected to have two of each.
    labels = np.array([40.0, 60.0])
    expected = expected_labels(labels, 4, 1e-6)
    assert expected == pytest.approx([40, 40, 60, 60], abs=1e-4)
    # Sorted, the predictions are 38, 41, 55, 62.
    distance = distribution_distance(torch.tensor([62.0, 38.0, 55.0, 41.0]), torch.tensor(expected))
    assert distance.item() == pytest.approx((2 + 1 + 5 + 2) / 4, abs=1e-4)


def test_expected_labels_are_ejection_fractions():
    expected = expected_labels(np.array([0.5, 99.5]), 20, 3.0)
    assert (expected.min(), expected.max()) == (0, 100)
    assert expected_labels(np.full(9, 55.0), 3, silverman_bandwidth(np.full(9, 55.0)))[1] == pytest.approx(55)


def test_bandwidth_by_silvermans_rule():
    labels = np.array([40.0, 50.0, 60.0, 70.0, 80.0])
    assert silverman_bandwidth(labels) == pytest.approx(0.9 * math.sqrt(200) * 5**-0.2)
    labels = np.array([20.0, 50.0, 51.0, 52.0, 90.0])  # the spread of the middle half is smaller
    assert silverman_bandwidth(labels) == pytest.approx(0.9 * 2 / 1.349 * 5**-0.2)


def test_gradient():
    predictions = torch.tensor([62.0, 38.0, 55.0, 41.0], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor(expected_labels(TRAIN_LABELS, 4, 2.0))
    assert torch.autograd.gradcheck(lambda p: distribution_distance(p, expected), predictions)


def test_module_adds_the_weighted_distance_to_the_squared_error(outputs_of):
    predictions, labels = torch.tensor([50.0, 35.0, 60.0]), torch.tensor([52.0, 35.0, 58.0])
    loss, parts = DistLoss(TRAIN_LABELS, weight=0.5, bandwidth=2.0)(
        None, outputs_of(regression=predictions), labels, 1
    )
    expected = expected_labels(TRAIN_LABELS, 3, 2.0)
    distance = sum(abs(p - e) for p, e in zip([35.0, 50.0, 60.0], expected)) / 3
    assert parts["loss_distribution"].item() == pytest.approx(distance, rel=1e-6)
    assert loss.item() == pytest.approx(8 / 3 + 0.5 * distance, rel=1e-6)


def test_bandwidth_must_be_positive():
    with pytest.raises(ValueError, match="bandwidth"):
        DistLoss(TRAIN_LABELS, bandwidth=0.0)
