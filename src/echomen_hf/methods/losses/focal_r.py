"""Focal-R: the regression form of the focal loss; samples with small errors count less."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["FOCAL_R", "FocalRLoss", "focal_r_loss"]

SMALLEST_FACTOR = 1e-12
"""Below it a power between 0 and 1 would have no finite derivative."""


def focal_r_loss(
    predictions: torch.Tensor,
    labels: torch.Tensor,
    *,
    beta: float = 0.2,
    gamma: float = 1.0,
    activation: Literal["sigmoid", "tanh"] = "sigmoid",
    error: Literal["l1", "mse"] = "l1",
) -> torch.Tensor:
    """Focal regression loss: the mean of error times a(beta |e|)^gamma, with e the deviation in EF points.

    The factor is a(x) = 2 sigmoid(x) - 1 or tanh(x); the error is |e| or e squared.
    """
    if activation not in ("sigmoid", "tanh") or error not in ("l1", "mse"):
        raise ValueError(
            f"`activation` must be 'sigmoid' or 'tanh' and `error` 'l1' or 'mse', got {activation!r} and {error!r}."
        )
    if beta < 0 or gamma < 0:
        raise ValueError(f"`beta` and `gamma` must not be negative, got {beta} and {gamma}.")
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    deviation = (predictions.to(dtype) - labels.to(dtype)).abs()
    # 2 sigmoid(x) - 1 = tanh(x / 2), without the difference of two numbers near 1.
    factor = torch.tanh(beta * deviation / (2 if activation == "sigmoid" else 1))
    factor = factor.clamp(min=SMALLEST_FACTOR) ** gamma
    return ((deviation if error == "l1" else deviation.square()) * factor).mean()


class FocalRLoss(MethodLoss):
    """Module form of `focal_r_loss`.

    Args:
        beta: Slope of the factor, per EF point.
        gamma: Exponent of the factor; 0 leaves the plain error.
        activation: `"sigmoid"`, a(x) = 2 sigmoid(x) - 1, or `"tanh"`.
        error: `"l1"`, |e|, or `"mse"`, e squared.
    """

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        beta: float = 0.2,
        gamma: float = 1.0,
        activation: Literal["sigmoid", "tanh"] = "sigmoid",
        error: Literal["l1", "mse"] = "l1",
    ) -> None:
        super().__init__(train_labels)
        self.beta = beta
        self.gamma = gamma
        self.activation: Literal["sigmoid", "tanh"] = activation
        self.error: Literal["l1", "mse"] = error

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`."""
        regression = focal_r_loss(
            outputs.regression,
            labels,
            beta=self.beta,
            gamma=self.gamma,
            activation=self.activation,
            error=self.error,
        )
        return regression, {"loss_regression": regression}


FOCAL_R = Method(
    name="focal_r",
    title="Focal-R",
    source="Lin et al., ICCV 2017, in the regression form of Yang et al., ICML 2021.",
    group="rival",
    loss=FocalRLoss,
)
