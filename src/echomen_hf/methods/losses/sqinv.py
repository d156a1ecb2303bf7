"""SQInv: squared errors weighted by the inverse square root of the label's frequency."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...labels import BinWeightTable, ExpertWeightTable
from ...losses import reweighted_regression_loss
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["SQINV", "SQInvLoss", "sqrt_inverse_weights"]


def sqrt_inverse_weights(train_labels: NDArray[np.float64], bin_width: float = 1.0) -> BinWeightTable:
    """Weight samples by 1 / sqrt(count of their label bin), with mean 1 over the training set."""
    return ExpertWeightTable(train_labels, num_experts=1, bin_width=bin_width, min_count=1, exponents=[0.5])


class SQInvLoss(MethodLoss):
    """Mean squared error with square-root-inverse-frequency weights.

    Args:
        bin_width: Width in EF points of the bins in which samples are counted.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, bin_width: float = 1.0) -> None:
        super().__init__(train_labels)
        self.weights = sqrt_inverse_weights(train_labels, bin_width)

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`."""
        regression = reweighted_regression_loss(outputs.regression[:, None], labels, self.weights(labels))
        return regression, {"loss_regression": regression}


SQINV = Method(
    name="sqinv",
    title="SQInv",
    source="Square-root-inverse-frequency weighting, as in Yang et al., ICML 2021; bins of 1 EF point.",
    group="rival",
    loss=SQInvLoss,
)
