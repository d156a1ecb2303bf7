import math

import pytest
import torch

from echomen_hf.methods.losses.focal_r import FocalRLoss, focal_r_loss


PREDICTIONS = torch.tensor([50.0, 43.0], dtype=torch.float64)
LABELS = torch.tensor([55.0, 43.5], dtype=torch.float64)


def sigmoid_factor(error, beta=0.2):
    return 2 / (1 + math.exp(-beta * error)) - 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (5 * sigmoid_factor(5) + 0.5 * sigmoid_factor(0.5)) / 2),
        ({"gamma": 2.0}, (5 * sigmoid_factor(5) ** 2 + 0.5 * sigmoid_factor(0.5) ** 2) / 2),
        ({"activation": "tanh", "beta": 0.3}, (5 * math.tanh(1.5) + 0.5 * math.tanh(0.15)) / 2),
        ({"error": "mse"}, (25 * sigmoid_factor(5) + 0.25 * sigmoid_factor(0.5)) / 2),
        ({"gamma": 0.0}, (5 + 0.5) / 2),
    ],
)
def test_worked_by_hand(settings, expected):
    assert focal_r_loss(PREDICTIONS, LABELS, **settings).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("error", ["l1", "mse"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_gradient(error, activation):
    predictions = PREDICTIONS.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: focal_r_loss(p, LABELS, error=error, activation=activation, gamma=1.5), predictions
    )


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("error", [0.0, 1e-30, 1e6])
def test_finite_for_every_deviation(gamma, error):
    predictions = torch.tensor([50.0, 50.0 + error]).requires_grad_()
    loss = focal_r_loss(predictions, torch.tensor([50.0, 50.0]), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert predictions.grad.isfinite().all()


def test_full_precision_inside_autocast():
    predictions, labels = PREDICTIONS.float(), LABELS.float()
    expected = focal_r_loss(predictions, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(focal_r_loss(predictions, labels), expected)
    assert focal_r_loss(predictions.bfloat16(), labels).dtype == torch.float32


def test_settings_reach_the_loss(outputs_of):
    loss, _ = FocalRLoss(LABELS.numpy(), beta=0.5, gamma=2.0, activation="tanh", error="mse")(
        None, outputs_of(regression=PREDICTIONS), LABELS, 1
    )
    expected = focal_r_loss(PREDICTIONS, LABELS, beta=0.5, gamma=2.0, activation="tanh", error="mse")
    assert torch.equal(loss, expected)


def test_unknown_settings():
    with pytest.raises(ValueError, match="'sigmoid' or 'tanh'"):
        focal_r_loss(PREDICTIONS, LABELS, activation="relu")
    with pytest.raises(ValueError, match="must not be negative"):
        focal_r_loss(PREDICTIONS, LABELS, gamma=-1.0)
