"""Rank-N-Contrast (Zha et al., NeurIPS 2023): features ordered as the labels are, then a linear head."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ...training.stage_2 import Stage2
from ..method import Method
from ..method_trainer import Loss, MethodLoss, MethodTrainer


__all__ = ["RANK_N_CONTRAST", "RankNContrastLoss", "RankNContrastTrainer", "rank_n_contrast_loss"]


def rank_n_contrast_loss(features: torch.Tensor, labels: torch.Tensor, *, temperature: float = 2.0) -> torch.Tensor:
    """Rank-N-Contrast loss: j must be more similar to i than every k whose label is at least as far from i's.

    The mean over all ordered pairs (i, j) of -log exp(s_ij / tau) / sum over k in S_ij of exp(s_ik / tau), with s the
    negative Euclidean distance and S_ij = {k != i : |y_i - y_k| >= |y_i - y_j|}.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    dtype = torch.promote_types(features.dtype, torch.float32)
    count = len(labels)
    if count < 2:
        return features.to(dtype).sum() * 0.0
    with torch.autocast(features.device.type, enabled=False):
        features, labels = features.to(dtype), labels.to(dtype)
        # By differences and not by a matrix product, which cannot distinguish close features from equal ones.
        distances = torch.linalg.vector_norm(features[:, None] - features[None, :], dim=-1)
        similarity = -distances / temperature  # (N, N)
        label_distance = (labels[:, None] - labels[None, :]).abs()
        myself = torch.eye(count, dtype=torch.bool, device=features.device)
        is_left_out = (label_distance[:, None, :] < label_distance[:, :, None]) | myself[:, None, :]  # (i, j, k)
        of_rivals = similarity[:, None, :].masked_fill(is_left_out, -torch.inf).logsumexp(dim=2)  # (N, N)
        return (of_rivals - similarity).masked_fill(myself, 0.0).sum() / (count * (count - 1))


class RankNContrastLoss(MethodLoss):
    """Rank-N-Contrast on the embedding.

    The regression head, which serves to choose the best epoch on VAL, does not change the embeddings.

    Args:
        temperature: Temperature tau.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, temperature: float = 2.0) -> None:
        super().__init__(train_labels)
        self.temperature = temperature

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; samples of all processes are compared."""
        contrastive = loss_of_all_processes(self._contrast, outputs.embedding, labels)
        with torch.autocast(labels.device.type, enabled=False):
            predictions = model.regression_head(outputs.embedding.detach()).squeeze(-1)
        regression = absolute_error(predictions, labels)
        return contrastive + regression, {"loss_contrastive": contrastive, "loss_regression": regression}

    def _contrast(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return rank_n_contrast_loss(features, labels, temperature=self.temperature)


class LinearHeadStage(Stage2):
    """Stage 2 of a linear head, the only expert, by the absolute error."""

    def loss(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch."""
        regression = absolute_error(outputs.expert_predictions[:, 0], labels)
        return regression, {"loss_regression": regression}


class RankNContrastTrainer(MethodTrainer):
    """Trains the encoder by Rank-N-Contrast in stage 1, and in stage 2 a linear head on it by the absolute error."""

    stage_classes = {**MethodTrainer.stage_classes, "2": LinearHeadStage}


def absolute_error(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average the absolute errors in single precision at least."""
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    return (predictions.to(dtype) - labels.to(dtype)).abs().mean()


RANK_N_CONTRAST = Method(
    name="rank_n_contrast",
    title="Rank-N-Contrast",
    source="Zha et al., Rank-N-Contrast: learning continuous representations for regression, NeurIPS 2023: two views, "
    "contrast on the embedding, then one linear head by the absolute error on the fixed encoder.",
    group="newer",
    loss=RankNContrastLoss,
    trainer_class=RankNContrastTrainer,
    # One expert, with weight 1, is one linear head.
    model_defaults={"num_experts": 1, "expert_aggregation": "mean"},
    # The solution in closed form is that of squared errors.
    training_defaults={"stage": "both", "num_views": 2, "expert_solver": "gradient"},
)
