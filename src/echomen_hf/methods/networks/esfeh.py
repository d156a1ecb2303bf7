"""Esfeh et al.: a Bayesian R(2+1)D, trained by squared error and the divergence from the prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...losses import squared_error
from ..losses.echonet import ECHONET_SCHEDULE
from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer
from .bayesian_r2plus1d import BayesianR2Plus1DModel


__all__ = ["ESFEH", "EsfehLoss"]


class EsfehLoss(MethodLoss):
    """Squared error of a sample plus the divergence of the weights from their prior, divided by N.

    This is the negative evidence lower bound per video for a label noise of variance 1/2.

    Args:
        train_labels: EF in percent of the training set, shape (N,).
        kl_weight: Factor on the divergence.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, kl_weight: float = 1.0) -> None:
        super().__init__(train_labels)
        if kl_weight < 0:
            raise ValueError(f"`kl_weight` must not be negative, got {kl_weight}.")
        self.factor = kl_weight / len(train_labels)

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; of a `BayesianR2Plus1DOutput`."""
        regression = squared_error(outputs.regression, labels)
        divergence = self.factor * outputs.kl_divergence
        return regression + divergence, {"loss_regression": regression, "loss_divergence": divergence}


ESFEH = Method(
    name="esfeh",
    title="Esfeh",
    source="Kazemi Esfeh et al., A deep Bayesian video analysis framework: towards a more robust estimation of "
    "ejection fraction, MICCAI 2020. Neither code nor the details of network, prior and schedule were published: "
    "built here as R(2+1)D-18 with a mean-field Gaussian head, whose samples are averaged and whose spread is the "
    "uncertainty, on EchoNet's clips and schedule.",
    group="rival",
    loss=EsfehLoss,
    trainer_class=ArchitectureTrainer,
    model_class=BayesianR2Plus1DModel,
    training_defaults={"stage": "1", "num_views": 1},
    published_training=ECHONET_SCHEDULE,
)
