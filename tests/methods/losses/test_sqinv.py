import numpy as np
import pytest
import torch

from echomen_hf.methods.losses.sqinv import SQInvLoss, sqrt_inverse_weights


# Four samples in the bin of 60, one in the bin of 30.
TRAIN_LABELS = np.array([60.0, 60.2, 60.5, 60.9, 30.4])


def test_weights_worked_by_hand():
    # 1/sqrt(4) = 0.5 four times and 1/sqrt(1) = 1 once have the mean 0.6.
    weights = sqrt_inverse_weights(TRAIN_LABELS)(TRAIN_LABELS)
    np.testing.assert_allclose(weights[:, 0], [0.5 / 0.6] * 4 + [1 / 0.6])


def test_counts_are_not_floored():
    labels = np.concatenate([np.full(400, 55.5), [20.5]])
    weights = sqrt_inverse_weights(labels)(np.array([55.5, 20.5]))
    assert weights[1, 0] / weights[0, 0] == pytest.approx(20.0)


def test_loss_worked_by_hand(outputs_of):
    outputs = outputs_of(regression=torch.tensor([58.0, 33.0], dtype=torch.float64))
    labels = torch.tensor([60.0, 30.0], dtype=torch.float64)
    loss, parts = SQInvLoss(TRAIN_LABELS)(None, outputs, labels, 1)
    assert loss.item() == pytest.approx((0.5 / 0.6 * 4 + 1 / 0.6 * 9) / 2)
    assert parts["loss_regression"] is loss


def test_bins_can_be_wider():
    weights = sqrt_inverse_weights(np.array([41.0, 44.0, 52.0]), bin_width=5.0)(np.array([41.0, 52.0]))
    assert weights[1, 0] / weights[0, 0] == pytest.approx(np.sqrt(2))
