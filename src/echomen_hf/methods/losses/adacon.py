"""AdaCon (Dai et al., TMI 2022): contrast with a margin that grows with the distance of the labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...losses import label_distances, squared_error, weighted_supcon_loss
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["ADACON", "AdaConLoss", "adacon_loss"]


def adacon_loss(
    projections: torch.Tensor,
    labels: torch.Tensor,
    *,
    scale: float = 150.0,
    margin_scale: float = 1.0,
    label_bin_width: float | None = None,
    reference_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Adaptive-margin contrastive loss: a negative's similarity counts as larger by the distance of its label.

    For anchor i, the mean over its positives p of -log exp(s c_ip) / (sum over positives q of exp(s c_iq) + sum over
    negatives n of exp(s (c_in + m_in))), with c the cosine similarity and m_in = 2 |F(y_i) - F(y_n)| for the
    distribution function F of the labels: the margin reaches from 0 to 2, as far as cosine similarities do. LDW-SupCon
    differs in that it normalises the weights exp(s m) of the negatives of each anchor. Projections have shape (N,
    views, P) and unit length; F is that of `reference_labels`, by default the batch's.
    """
    if not scale > 0:
        raise ValueError(f"`scale` must be positive, got {scale}.")

    def log_weights(labels: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        margins = label_distances(labels, "cdf", margin_scale, reference_labels=reference_labels)
        return (scale * margins).masked_fill(~negatives, 0.0)

    return weighted_supcon_loss(
        projections, labels, log_weights, temperature=1 / scale, label_bin_width=label_bin_width
    )


class AdaConLoss(MethodLoss):
    """Mean squared error plus the adaptive-margin contrastive loss.

    Args:
        weight: Factor on the contrastive loss.
        scale: Scale s of similarities and margins, the inverse of a temperature.
        margin_scale: Factor on the margins.
        label_bin_width: Width in EF points of the bins that make samples positives of each other. Defaults to none:
            only views of the same sample are.
    """

    uses_projection = True

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        weight: float = 0.75,
        scale: float = 150.0,
        margin_scale: float = 1.0,
        label_bin_width: float | None = None,
    ) -> None:
        super().__init__(train_labels)
        self.weight = weight
        self.scale = scale
        self.margin_scale = margin_scale
        self.label_bin_width = label_bin_width
        self.reference_labels: torch.Tensor
        self.register_buffer("reference_labels", torch.tensor(train_labels, dtype=torch.float32), persistent=False)

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; samples of all processes are compared."""
        regression = squared_error(outputs.regression, labels)
        projections = outputs.projection.unflatten(0, (-1, num_views))  # (B * V, P) -> (B, V, P)
        contrastive = loss_of_all_processes(self._contrast, projections, labels[::num_views])
        loss = regression + self.weight * contrastive
        return loss, {"loss_regression": regression, "loss_contrastive": contrastive}

    def _contrast(self, projections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return adacon_loss(
            projections,
            labels,
            scale=self.scale,
            margin_scale=self.margin_scale,
            label_bin_width=self.label_bin_width,
            reference_labels=self.reference_labels,
        )


ADACON = Method(
    name="adacon",
    title="AdaCon",
    source="Dai et al., Adaptive contrast for image regression in computer-aided disease assessment, TMI 2022: weight "
    "0.75, scale 150; the views are two crops of one clip.",
    group="newer",
    loss=AdaConLoss,
    training_defaults={"stage": "1", "num_views": 2},
)
