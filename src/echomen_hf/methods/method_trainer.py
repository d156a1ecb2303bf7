"""The trainer of EchoMEN with another loss in stage 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ..model.modeling_echomen import EchoMENOutput
from ..training import EchoMENTrainer
from .method_loss import MethodLoss


__all__ = ["MethodTrainer"]


class MethodTrainer(EchoMENTrainer):
    """Trains encoder and regression head by the loss of a method; all else is as for EchoMEN.

    Args:
        args: As for `EchoMENTrainer`.
        loss: Class of the loss, called with the labels of the training set.
        kwargs: As for `EchoMENTrainer`.
    """

    def __init__(self, *args: Any, loss: Callable[..., MethodLoss], **kwargs: Any) -> None:
        self._loss_class = loss
        super().__init__(*args, **kwargs)
        self.add_callback(EndOfEpoch(self.method_loss))

    def prepare_stage(self) -> None:
        """Set the model up for the stage; a projector that the loss does not use is not trained."""
        super().prepare_stage()
        if self.args.stage == "1":
            self.model.projector.requires_grad_(self.method_loss.uses_projection)

    def _make_losses(self, train_labels: Any) -> None:
        super()._make_losses(train_labels)
        self._make_method_loss(train_labels)

    def _make_method_loss(self, train_labels: Any) -> None:
        if train_labels is None:
            raise ValueError("The losses of methods depend on the training labels: pass `train_labels`.")
        self.method_loss = self._loss_class(np.asarray(train_labels, dtype=np.float64)).to(self.args.device)

    def _stage_1_loss(
        self, outputs: EchoMENOutput, labels: torch.Tensor, label_of_view: torch.Tensor, num_views: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.method_loss(self.model, outputs, label_of_view, num_views)


class EndOfEpoch(TrainerCallback):
    """Tells a loss that an epoch has ended, before the model is evaluated and saved.

    Args:
        loss: The loss.
    """

    def __init__(self, loss: MethodLoss) -> None:
        self.loss = loss

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Pass it on.

        Args:
            args: Not used.
            state: Not used.
            control: Not used.
            model: Model that is trained, not wrapped.
            kwargs: Not used.
        """
        self.loss.end_epoch(model)
