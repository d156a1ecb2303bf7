import math

import numpy as np
import pytest
import torch

from echomen_hf.methods.losses.balanced_mse import BalancedMSELoss, balanced_mse_loss


PREDICTIONS = torch.tensor([48.0, 57.0, 30.0], dtype=torch.float64)
LABELS = torch.tensor([50.0, 60.0, 25.0], dtype=torch.float64)


def density(value, mean, std):
    return math.exp(-0.5 * ((value - mean) / std) ** 2)


@pytest.mark.parametrize("candidates", [LABELS, torch.tensor([20.0, 25.0, 50.0, 55.0, 58.0, 60.0, 61.0]).double()])
def test_agrees_with_the_definition(candidates):
    std = 4.0
    expected = 0.0
    for prediction, label in zip(PREDICTIONS.tolist(), LABELS.tolist()):
        total = sum(density(other, prediction, std) for other in candidates.tolist())
        expected -= 2 * std**2 * math.log(density(label, prediction, std) / total) / 3
    found = balanced_mse_loss(PREDICTIONS, LABELS, candidates, std)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_batch_form_is_a_cross_entropy_over_the_batch():
    logits = -((PREDICTIONS[:, None] - LABELS[None]) ** 2) / (2 * 9.0)
    expected = 18.0 * torch.nn.functional.cross_entropy(logits, torch.arange(3))
    torch.testing.assert_close(balanced_mse_loss(PREDICTIONS, LABELS, LABELS, 3.0), expected)


def test_optimum_undoes_the_pull_towards_frequent_labels():
    """Worked by hand for labels from N(55, 10^2) and a noise of 6.

    Squared error would answer 40 where 40 is the mean label. Balanced MSE answers f such that N(f, 6^2) times the
    training distribution has that mean: (100 f + 36 * 55) / 136 = 40.
    """
    grid = torch.linspace(5, 105, 501, dtype=torch.float64)
    candidates = grid.repeat_interleave((2000 * torch.exp(-0.5 * ((grid - 55) / 10) ** 2)).long())
    prediction = torch.tensor([40.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([prediction], lr=0.5, max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = balanced_mse_loss(prediction, torch.tensor([40.0]), candidates, 6.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert prediction.item() == pytest.approx(34.6, abs=0.05)


def test_gradient_with_respect_to_predictions_and_noise():
    predictions = PREDICTIONS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: balanced_mse_loss(p, LABELS, LABELS, 4.0), predictions)
    # The factor 2 s^2 only restores the scale: the gradient of s is that of the likelihood, times its value.
    std = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    balanced_mse_loss(PREDICTIONS, LABELS, LABELS, std).backward()
    step = 1e-5
    likelihood = [balanced_mse_loss(PREDICTIONS, LABELS, LABELS, s) / (2 * s * s) for s in (4 - step, 4 + step)]
    numeric = 32 * (likelihood[1] - likelihood[0]) / (2 * step)
    assert std.grad.item() == pytest.approx(numeric.item(), rel=1e-5)


@pytest.mark.parametrize("error", [0.0, 30.0, 1e5])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("noise", [0.1, 8.0, 1e3])
def test_finite_for_every_batch(error, count, noise):
    labels = torch.linspace(40, 60, count)
    predictions = (labels + error).requires_grad_()
    loss = balanced_mse_loss(predictions, labels, labels, noise)
    loss.backward()
    assert loss.isfinite()
    assert predictions.grad.isfinite().all()


def test_full_precision_inside_autocast():
    predictions, labels = PREDICTIONS.float(), LABELS.float()
    expected = balanced_mse_loss(predictions, labels, labels, 4.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(balanced_mse_loss(predictions, labels, labels, 4.0), expected)


def test_noise_is_learnt_and_kept_in_checkpoints_but_not_in_the_final_model(run, tmp_path):
    from safetensors.torch import load_file

    model = run("balanced_mse", learning_rate=1e-2, optim="adamw_torch")
    saved = load_file(tmp_path / "run" / "stage1" / "model.safetensors")
    assert saved["noise_scale.log_factor"].item() != 0
    assert not any("noise" in name for name in model.state_dict())


@pytest.mark.parametrize("candidates", ["batch", "train"])
def test_candidates(candidates, make_trainer_of):
    trainer, batch = make_trainer_of("balanced_mse", {"candidates": candidates, "initial_noise_std": 5.0})
    labels = batch["labels"]
    train = torch.tensor(trainer.train_dataset.ejection_fractions)
    loss = trainer.compute_loss(trainer.model, batch)
    regression = trainer.model(pixel_values=batch["pixel_values"]).regression
    expected = balanced_mse_loss(regression, labels, labels if candidates == "batch" else train, 5.0)
    torch.testing.assert_close(loss, expected)


def test_bad_settings():
    with pytest.raises(ValueError, match="initial_noise_std"):
        BalancedMSELoss(np.array([50.0]), initial_noise_std=0.0)
    with pytest.raises(ValueError, match="'batch' or 'train'"):
        BalancedMSELoss(np.array([50.0]), candidates="all")
