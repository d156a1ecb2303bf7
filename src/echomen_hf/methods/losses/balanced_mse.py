"""Balanced MSE (Ren et al., CVPR 2022): a regression loss that accounts for the imbalance of the labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import initialization as init

from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import gather_with_gradient
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["BALANCED_MSE", "BalancedMSELoss", "BalancedMSEModel", "balanced_mse_loss"]

SMALLEST_NOISE_STD = 0.1
"""In EF points; no reading of an echocardiogram is more exact, and with a noise of 0 there is no loss."""


def balanced_mse_loss(
    predictions: torch.Tensor,
    labels: torch.Tensor,
    candidates: torch.Tensor,
    noise_std: torch.Tensor | float,
) -> torch.Tensor:
    """Balanced MSE: -log of N(y; f, s^2) / sum over candidates y' of N(y'; f, s^2), times 2 s^2.

    The sum stands for the integral over the training distribution of the labels. With the labels of the batch as
    candidates, shape (K,), it is the batch-based Monte Carlo form; with all training labels it is exact, up to a
    constant. The factor 2 s^2 carries no gradient.
    """
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    predictions, labels, candidates = (tensor.to(dtype) for tensor in (predictions, labels, candidates))
    twice_variance = 2 * torch.as_tensor(noise_std, dtype=dtype, device=predictions.device).square()
    log_density = -(predictions - labels).square() / twice_variance  # (N,)
    of_candidates = -(predictions[:, None] - candidates[None, :]).square() / twice_variance  # (N, K)
    return twice_variance.detach() * (of_candidates.logsumexp(dim=1) - log_density).mean()


class NoiseScale(nn.Module):
    """The logarithm of a factor on the noise, learnt with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.log_factor = nn.Parameter(torch.zeros(()))


class BalancedMSEModel(EchoMENModel):
    """An EchoMEN model with a learnt noise of the labels, while it is trained."""

    # Only for checkpoints of a training, whose result is a plain model without the noise.
    _auto_class = None
    _keep_in_fp32_modules_strict = [*(EchoMENModel._keep_in_fp32_modules_strict or []), "noise_scale"]

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__(config)
        self.noise_scale = NoiseScale()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, NoiseScale):
            init.zeros_(module.log_factor)
        else:
            super()._init_weights(module)


class BalancedMSELoss(MethodLoss):
    """Balanced MSE with a noise that is learnt.

    Args:
        initial_noise_std: Standard deviation of the noise in EF points when training begins.
        candidates: Labels that represent the training distribution: those of each `"batch"`, or all of `"train"`.
    """

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        initial_noise_std: float = 1.0,
        candidates: Literal["batch", "train"] = "batch",
    ) -> None:
        super().__init__(train_labels)
        if not initial_noise_std > 0:
            raise ValueError(f"`initial_noise_std` must be positive, got {initial_noise_std}.")
        if candidates not in ("batch", "train"):
            raise ValueError(f"`candidates` must be 'batch' or 'train', got {candidates!r}.")
        self.initial_noise_std = initial_noise_std
        self.candidates = candidates
        self.train_labels: torch.Tensor
        self.register_buffer("train_labels", torch.tensor(train_labels, dtype=torch.float32), persistent=False)

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; the candidates come from all processes."""
        scale: NoiseScale = model.get_submodule("noise_scale")
        noise_std = (self.initial_noise_std * scale.log_factor.exp()).clamp(min=SMALLEST_NOISE_STD)
        candidates = gather_with_gradient(labels)[0] if self.candidates == "batch" else self.train_labels
        regression = balanced_mse_loss(outputs.regression, labels, candidates, noise_std)
        return regression, {"loss_regression": regression, "noise_std": noise_std}


BALANCED_MSE = Method(
    name="balanced_mse",
    title="Balanced MSE",
    source="Ren et al., Balanced MSE for imbalanced visual regression, CVPR 2022: batch-based form, learnt noise.",
    group="newer",
    loss=BalancedMSELoss,
    model_class=BalancedMSEModel,
)
