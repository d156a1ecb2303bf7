"""Dist Loss (Nie et al., ICLR 2025): sorted predictions of a batch lie where sorted labels would."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from ...labels import EF_RANGE
from ...losses import squared_error
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["DIST_LOSS", "DistLoss", "distribution_distance", "expected_labels", "silverman_bandwidth"]


def silverman_bandwidth(labels: NDArray[np.float64]) -> float:
    """Choose the bandwidth of a Gaussian kernel density estimate by Silverman's rule; 1 for equal labels."""
    low, high = np.quantile(labels, [0.25, 0.75])
    spreads = [spread for spread in (labels.std(), (high - low) / 1.349) if spread > 0]
    return float(0.9 * min(spreads) * len(labels) ** -0.2) if spreads else 1.0


def expected_labels(train_labels: NDArray[np.float64], count: int, bandwidth: float) -> NDArray[np.float64]:
    """Compute the labels that a batch is expected to have, ascending, shape (count,).

    These are the quantiles at (i - 0.5) / count of a Gaussian kernel density estimate of the training labels, within
    0 and 100 %.
    """
    levels = (np.arange(count) + 0.5) / count
    low = np.full(count, train_labels.min() - 9 * bandwidth)
    high = np.full(count, train_labels.max() + 9 * bandwidth)
    for _ in range(48):  # bisection to 1e-12 EF points
        middle = (low + high) / 2
        is_below = ndtr((middle[:, None] - train_labels) / bandwidth).mean(axis=1) < levels
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return np.clip((low + high) / 2, *EF_RANGE)


def distribution_distance(predictions: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Average the absolute differences of the sorted predictions, shape (N,), from ascending labels, shape (N,)."""
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    return (predictions.to(dtype).sort().values - expected.to(dtype)).abs().mean()


class DistLoss(MethodLoss):
    """Mean squared error plus the distance between the distributions of predictions and training labels.

    Args:
        weight: Factor on the distance of the distributions.
        bandwidth: Standard deviation in EF points of the kernel that smooths the training labels. Defaults to
            Silverman's rule.
    """

    def __init__(
        self, train_labels: NDArray[np.float64], *, weight: float = 1.0, bandwidth: float | None = None
    ) -> None:
        super().__init__(train_labels)
        if bandwidth is not None and not bandwidth > 0:
            raise ValueError(f"`bandwidth` must be positive, got {bandwidth}.")
        self.weight = weight
        bandwidth = silverman_bandwidth(train_labels) if bandwidth is None else bandwidth
        self.expected = cache(lambda count: torch.tensor(expected_labels(train_labels, count, bandwidth)))

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; predictions of all processes are sorted together."""
        regression = squared_error(outputs.regression, labels)
        distribution = loss_of_all_processes(self._distance, outputs.regression)
        loss = regression + self.weight * distribution
        return loss, {"loss_regression": regression, "loss_distribution": distribution}

    def _distance(self, predictions: torch.Tensor) -> torch.Tensor:
        # The precision first: an accelerator need not have double precision.
        dtype = torch.promote_types(predictions.dtype, torch.float32)
        return distribution_distance(predictions, self.expected(len(predictions)).to(dtype).to(predictions.device))


DIST_LOSS = Method(
    name="dist_loss",
    title="Dist Loss",
    source="Nie et al., Dist Loss: enhancing regression in few-shot region through distribution distance constraint, "
    "ICLR 2025: weight 1, absolute differences. Added to the squared error; sorted exactly, which carries gradients, "
    "instead of softly; bandwidth by Silverman's rule; labels are the middle quantiles of as many equal shares as a "
    "batch has samples.",
    group="newer",
    loss=DistLoss,
)
