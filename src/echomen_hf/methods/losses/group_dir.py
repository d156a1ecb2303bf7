"""Group-DIR (Pu et al., AAAI 2025): a classifier of label groups chooses among one regressor per group."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...labels import EF_RANGE, label_bins
from ...losses import squared_error, weighted_supcon_loss
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ..method import Method
from ..method_trainer import Loss, MethodLoss, MethodStage, MethodTrainer


__all__ = [
    "GROUP_DIR",
    "GroupDIRLoss",
    "GroupDIRTrainer",
    "group_contrast",
    "soft_group_loss",
    "soft_group_targets",
]


def group_width(num_groups: int) -> float:
    """Width in EF points of one of equal groups."""
    low, high = EF_RANGE
    return (high - low) / num_groups


def label_groups(labels: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Assign labels to groups; rounding may leave a last bin for 100 % alone."""
    return label_bins(labels, group_width(num_groups)).clamp(max=num_groups - 1)


def group_contrast(
    projections: torch.Tensor, labels: torch.Tensor, *, num_groups: int, temperature: float = 0.1
) -> torch.Tensor:
    """Supervised contrastive loss between groups, whose negatives weigh as much as their group is far.

    For anchor i, the mean over the other samples p of its group of -log exp(s_ip) / (sum over positives q of exp(s_iq)
    + sum over negatives n of |g_i - g_n| exp(s_in)), with s the cosine similarity over the temperature. Projections
    have shape (N, views, P) and unit length.
    """

    def log_weights(labels: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        groups = label_groups(labels, num_groups).to(labels.dtype)
        distance = (groups[:, None] - groups[None, :]).abs()
        return distance.clamp(min=1.0).log().masked_fill(~negatives, 0.0)

    return weighted_supcon_loss(
        projections, labels, log_weights, temperature=temperature, label_bin_width=group_width(num_groups)
    )


def soft_group_targets(groups: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Make the soft labels, (N, G): G for the own group and 1 less for each group between, divided by their sum."""
    distance = (torch.arange(num_groups, device=groups.device)[None, :] - groups[:, None]).abs()
    height = (num_groups - distance).to(torch.float32)
    return height / height.sum(dim=1, keepdim=True)


def soft_group_loss(logits: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the logits of the groups, (N, G), against the soft labels."""
    targets = soft_group_targets(groups, logits.shape[1]).to(logits.dtype)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


class GroupDIRLoss(MethodLoss):
    """Contrast between groups, squared error of the regressor of the own group, and soft classification of groups.

    Args:
        contrast_weight: Factor on the contrast.
        classification_weight: Factor on the cross-entropy of the groups.
        temperature: Temperature of the contrast.
        prediction: Prediction of the `"largest"` group, or the `"mean"` of all, weighted by their probability.
    """

    uses_projection = True
    uses_experts = True

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        contrast_weight: float = 1.0,
        classification_weight: float = 1.0,
        temperature: float = 0.1,
        prediction: Literal["largest", "mean"] = "largest",
    ) -> None:
        super().__init__(train_labels)
        if prediction not in ("largest", "mean"):
            raise ValueError(f"`prediction` must be 'largest' or 'mean', got {prediction!r}.")
        self.contrast_weight = contrast_weight
        self.classification_weight = classification_weight
        self.temperature = temperature
        self.prediction = prediction

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; samples of all processes are compared."""
        num_groups = outputs.expert_predictions.shape[1]

        def contrast(projections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return group_contrast(projections, labels, num_groups=num_groups, temperature=self.temperature)

        projections = outputs.projection.unflatten(0, (-1, num_views))  # (B * V, P) -> (B, V, P)
        contrastive = loss_of_all_processes(contrast, projections, labels[::num_views])
        groups = label_groups(labels, num_groups)
        own = outputs.expert_predictions.gather(1, groups[:, None]).squeeze(1)
        regression = squared_error(own, labels)
        with torch.autocast(labels.device.type, enabled=False):
            logits = model.aggregator.logits(outputs.embedding)
            classification = soft_group_loss(logits, groups)
        loss = regression + self.contrast_weight * contrastive + self.classification_weight * classification
        return loss, {
            "loss_regression": regression,
            "loss_contrastive": contrastive,
            "loss_classification": classification,
        }


class GroupStage(MethodStage):
    """Trains experts and aggregator, as regressors and classifier of the groups, together with the encoder."""

    def prepare(self, model: EchoMENModel, train_dataset: Any) -> None:
        """Fix the regression head, and choose how groups predict."""
        super().prepare(model, train_dataset)
        model.config.prediction_head = "experts"
        model.config.expert_top_k = 1 if cast(GroupDIRLoss, self.method_loss).prediction == "largest" else None
        model.regression_head.requires_grad_(False)
        model.experts.requires_grad_(True)
        model.aggregator.requires_grad_(True)


class GroupDIRTrainer(MethodTrainer):
    """Trainer with such a stage."""

    stage_classes = {"1": GroupStage}


GROUP_DIR = Method(
    name="group_dir",
    title="Group-DIR",
    source="Pu et al., Leveraging group classification with descending soft labeling for deep imbalanced regression, "
    "AAAI 2025: 10 groups of 10 EF points. EchoMEN's experts are the regressors and its aggregator the classifier, of "
    "two layers; negatives weigh as many as their group is steps away; all factors 1, temperature 0.1; the views are "
    "two crops of one clip.",
    group="newer",
    loss=GroupDIRLoss,
    trainer_class=GroupDIRTrainer,
    model_defaults={"num_experts": 10, "expert_aggregation": "aggregator"},
    training_defaults={"stage": "1", "num_views": 2},
)
