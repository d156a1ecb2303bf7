"""Trainer and loss of methods other than EchoMEN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import TrainerCallback

from ..losses import squared_error
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from ..training import EchoMENTrainer, EchoMENTrainingArguments
from ..training.stage import Loss, Stage
from ..training.stage_1 import Stage1
from ..training.stage_2 import Stage2


__all__ = ["Loss", "MethodLoss", "MethodStage", "MethodTrainer"]


class MethodLoss(nn.Module):
    """Loss of stage 1; this base class is the plain mean squared error.

    A subclass has its settings as keyword-only arguments of its constructor. State that has to survive a checkpoint
    belongs into the model and not here.

    Args:
        train_labels: EF in percent of the training set, shape (N,).
    """

    uses_projection = False
    """Whether the projector is part of the loss, and therefore trained."""

    uses_experts = False
    """Whether experts and aggregator are, instead of the regression head."""

    def __init__(self, train_labels: NDArray[np.float64]) -> None:
        super().__init__()

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch.

        Args:
            model: Model that is trained, not wrapped.
            outputs: Its output for the B * views clips, views of one video next to each other.
            labels: EF in percent, of every view, shape (B * views,).
            num_views: Views of each video.

        Returns:
            Loss, and its parts by the names under which they are logged.
        """
        regression = squared_error(outputs.regression, labels)
        return regression, {"loss_regression": regression}

    def end_epoch(self, model: EchoMENModel) -> None:
        """Called at the end of every epoch, before evaluation and saving; does nothing by default."""


class MethodStage(Stage1):
    """Stage 1 by the loss of a method; a projector that it does not use is not trained."""

    def __init__(
        self,
        args: EchoMENTrainingArguments,
        model: EchoMENModel,
        train_labels: torch.Tensor | None,
        *,
        loss: Callable[..., MethodLoss],
    ) -> None:
        super().__init__(args, model, train_labels)
        if getattr(model.config, "adapter_size", None) is not None:
            raise ValueError("Only EchoMEN itself has an adapter: leave `adapter_size` out of the configuration.")
        if train_labels is None:
            raise ValueError("The losses of methods depend on the training labels: pass `train_labels`.")
        self.method_loss = loss(train_labels.numpy()).to(args.device)

    def prepare(self, model: EchoMENModel, train_dataset: Any) -> None:
        """Fix experts and aggregator, and an unused projector."""
        super().prepare(model, train_dataset)
        model.projector.requires_grad_(self.method_loss.uses_projection)

    def loss(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch."""
        return self.method_loss(model, outputs, labels, num_views)


class MethodTrainer(EchoMENTrainer):
    """Trains encoder and regression head by the loss of a method; all else is as for EchoMEN.

    Args:
        args: As for `EchoMENTrainer`.
        loss: Class of the loss, called with the labels of the training set.
        kwargs: As for `EchoMENTrainer`.
    """

    stage_classes: Mapping[str, Callable[..., Stage]] = {"1": MethodStage, "2": Stage2}

    def __init__(self, *args: Any, loss: Callable[..., MethodLoss], **kwargs: Any) -> None:
        self.stage_classes = {**self.stage_classes, "1": partial(self.stage_classes["1"], loss=loss)}
        super().__init__(*args, **kwargs)
        self.add_callback(EndOfEpoch(self.method_loss))

    @property
    def method_loss(self) -> MethodLoss:
        """Loss of the method."""
        return cast(MethodStage, self.stages["1"]).method_loss


class EndOfEpoch(TrainerCallback):
    """Tells a loss that an epoch has ended, before the model is evaluated and saved."""

    def __init__(self, loss: MethodLoss) -> None:
        self.loss = loss

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Pass it on."""
        self.loss.end_epoch(model)
