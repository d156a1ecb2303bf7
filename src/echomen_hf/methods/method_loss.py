"""What a rival's loss is to the trainer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..losses import squared_error
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput


__all__ = ["MethodLoss"]


class MethodLoss(nn.Module):
    """Loss of stage 1; as it stands, the plain mean squared error.

    A subclass keeps its settings as keyword-only arguments of its constructor. What has to survive a checkpoint
    belongs into the model and not here.

    Args:
        train_labels: EF in percent of the training set, shape (N,).
    """

    uses_projection = False
    """Whether the projector is part of the loss, and therefore trained."""

    def __init__(self, train_labels: NDArray[np.float64]) -> None:
        super().__init__()

    def forward(
        self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a batch.

        Args:
            model: Model that is trained, not wrapped.
            outputs: What it computed of the B * views clips, views of one video next to each other.
            labels: EF in percent, of every view, shape (B * views,).
            num_views: Views of each video.

        Returns:
            Loss, and its parts by the names under which they are logged.
        """
        regression = squared_error(outputs.regression, labels)
        return regression, {"loss_regression": regression}

    def end_epoch(self, model: EchoMENModel) -> None:
        """Do what is due once an epoch, before it is evaluated and saved; nothing by default.

        Args:
            model: Model that is trained, not wrapped.
        """
