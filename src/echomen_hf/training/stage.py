"""Base of the two training stages."""

from __future__ import annotations

from typing import Any

import torch

from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from .arguments import EchoMENTrainingArguments


__all__ = ["Loss", "Stage"]

Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""A scalar, and its parts by the names under which they are logged."""


class Stage:
    """Everything that differs between the stages of a training.

    Args:
        args: Training arguments.
        model: Model to train.
        train_labels: EF in percent of the training set, float64, shape (N,), if known.
    """

    def __init__(self, args: EchoMENTrainingArguments, model: EchoMENModel, train_labels: torch.Tensor | None) -> None:
        self.args = args

    def prepare(self, model: EchoMENModel, train_dataset: Any) -> None:
        """Fix what is not trained, and choose the head that predicts."""
        raise NotImplementedError

    def leave(self, model: EchoMENModel) -> None:
        """Let everything be trained again."""
        model.freeze_encoder(False)
        model.requires_grad_(True)

    def loss(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch; see `MethodLoss.forward` for the arguments."""
        raise NotImplementedError

    def set_learning_rates(self, optimizer: torch.optim.Optimizer, model: EchoMENModel) -> None:
        """Give parts of the model a learning rate of their own."""
