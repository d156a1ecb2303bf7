"""The two losses of EchoMEN, as pure functions of tensors and as modules with settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from .labels import label_bins


__all__ = [
    "LDWSupConLoss",
    "LabelDistance",
    "ReweightedRegressionLoss",
    "label_distances",
    "ldw_supcon_loss",
    "negative_log_weights",
    "reweighted_regression_loss",
    "squared_error",
    "weighted_supcon_loss",
]

LabelDistance = Literal["l1", "l2", "cdf", "none"]
"""Distance of two labels: absolute or squared difference in standard deviations, difference of ranks, or 0."""


def label_distances(
    labels: torch.Tensor,
    distance: LabelDistance = "l1",
    distance_scale: float = 1.0,
    label_std: float | None = None,
    reference_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the label distance d_ij of every pair of samples (section 2.1 of the paper).

    Labels are first divided by their standard deviation: on raw percentages exp(d) would leave about one effective
    negative per anchor.

    Args:
        labels: EF in percent, floating point, shape (N,).
        distance: `"l1"`, `"l2"` (squared), `"cdf"` (twice the difference of the empirical distribution functions),
            or `"none"` (0 for every pair, which makes the loss plain SupCon).
        distance_scale: Factor on the distances.
        label_std: Standard deviation of the training labels in percent. Defaults to that of `labels`.
        reference_labels: Training labels in percent, shape (K,), which `"cdf"` uses. Defaults to `labels`.

    Returns:
        Distances, shape (N, N), symmetric with a zero diagonal.
    """
    if distance == "none":
        return labels.new_zeros(len(labels), len(labels))
    if distance == "cdf":
        reference = (labels if reference_labels is None else reference_labels.to(labels)).sort().values
        position = torch.searchsorted(reference, labels, right=True).to(labels.dtype) / len(reference)
        return 2 * distance_scale * (position[:, None] - position[None, :]).abs()
    if distance not in ("l1", "l2"):
        raise ValueError(f"Unknown label distance {distance!r}; choose 'l1', 'l2', 'cdf' or 'none'.")
    difference = (labels[:, None] - labels[None, :]).abs()
    # Identical labels have no spread to divide by, and all their distances are 0 whatever the divisor.
    if label_std is not None:
        difference = difference / (label_std if label_std > 0 else 1.0)
    else:
        std = labels.std(correction=0)
        difference = difference / torch.where(std > 0, std, torch.ones_like(std))
    return distance_scale * (difference if distance == "l1" else difference**2)


def negative_log_weights(distances: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Compute log beta_ij of equation 2, shape (N, N), 0 where row i has no negative j in the boolean mask.

    beta has mean 1 over the negatives of every anchor.
    """
    log_count = negatives.sum(dim=1, keepdim=True).clamp(min=1).to(distances.dtype).log()
    # An anchor without negatives has no softmax; its row becomes zeros.
    log_share = distances.masked_fill(~negatives, -torch.inf).log_softmax(dim=1)
    return (log_count + log_share).masked_fill(~negatives, 0.0)


def ldw_supcon_loss(
    projections: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float = 0.1,
    label_bin_width: float | None = 1.0,
    distance: LabelDistance = "l1",
    distance_scale: float = 1.0,
    label_std: float | None = None,
    reference_labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """Label-distance weighted supervised contrastive loss (equations 1 and 2), averaged over the anchors.

    Every view of every sample is an anchor. Its positives are the other views of the same sample and all views of
    samples in the same label bin; everything else is a negative, weighted by beta. Anchors without a positive are
    skipped; without any anchor the loss is a zero that still carries gradient.

    Args:
        projections: L2-normalised projections, shape (N, views, P) or, for a single view, (N, P).
        labels: EF in percent, shape (N,).
        temperature: Temperature tau.
        label_bin_width: Width in EF points of the bins that make samples positives of each other; `None` leaves only
            the other views of the same sample.
        distance: Kind of label distance, see `label_distances` for it and the next three.
        distance_scale: Factor on the label distances.
        label_std: Standard deviation of the training labels.
        reference_labels: Training labels.

    Returns:
        Scalar loss; float32, or float64 if the projections are.
    """

    def log_beta(labels: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        distances = label_distances(labels, distance, distance_scale, label_std, reference_labels)
        return negative_log_weights(distances, negatives)

    return weighted_supcon_loss(
        projections, labels, log_beta, temperature=temperature, label_bin_width=label_bin_width
    )


def weighted_supcon_loss(
    projections: torch.Tensor,
    labels: torch.Tensor,
    log_weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    temperature: float,
    label_bin_width: float | None,
) -> torch.Tensor:
    """Supervised contrastive loss whose negatives have any weights (equation 1 with a free beta).

    `log_weights` computes, from the labels of all views, shape (N * views,), and the mask of negatives, shape
    (N * views, N * views), the logarithm of every pair's weight, 0 where a pair is no negative. All else is as for
    `ldw_supcon_loss`.
    """
    if projections.ndim == 2:
        projections = projections.unsqueeze(1)
    if projections.ndim != 3 or labels.shape != projections.shape[:1]:
        raise ValueError(
            "Expected projections of shape (N, views, P) and labels of shape (N,), got "
            f"{tuple(projections.shape)} and {tuple(labels.shape)}."
        )
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    num_samples, num_views, _ = projections.shape
    # Half precision cannot hold the exponentials, and autocast would put the product back into it.
    dtype = torch.float64 if projections.dtype == torch.float64 else torch.float32
    with torch.autocast(projections.device.type, enabled=False):
        z = projections.to(dtype).flatten(0, 1)  # (N, V, P) -> (N * V, P)
        labels = labels.to(dtype)
        similarity = z @ z.T / temperature

        sample = torch.arange(num_samples, device=z.device).repeat_interleave(num_views)
        myself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        group = sample if label_bin_width is None else label_bins(labels, label_bin_width)[sample]
        positives = (group[:, None] == group[None, :]) & ~myself
        num_positives = positives.sum(dim=1)

        weighted = similarity + log_weights(labels[sample], ~positives & ~myself)
        # For a view alone in its batch the sum is empty; it is no anchor, but must not give NaN either.
        summands = weighted.masked_fill(myself, torch.finfo(dtype).min)
        log_probability = similarity - summands.logsumexp(dim=1, keepdim=True)
        # 0 for a view without a positive, which is no anchor. All by arithmetic, for which no device has to wait.
        per_anchor = -(log_probability * positives).sum(dim=1) / num_positives.clamp(min=1)
        return per_anchor.sum() / (num_positives > 0).sum().clamp(min=1)


def reweighted_regression_loss(
    expert_predictions: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Re-weighted regression loss of the experts (equation 3), summed over experts and averaged over samples.

    The experts share no parameters, so the sum trains each of them as if alone.

    Args:
        expert_predictions: EF of every expert in percent, shape (N, M).
        labels: EF in percent, shape (N,).
        weights: Weight of every sample for every expert, shape (N, M), with mean 1 over the training set.

    Returns:
        Scalar loss in squared percent; float32, or float64 if the predictions are.
    """
    if expert_predictions.ndim != 2 or weights.shape != expert_predictions.shape:
        raise ValueError(
            "Expected predictions and weights of one shape (N, M), got "
            f"{tuple(expert_predictions.shape)} and {tuple(weights.shape)}."
        )
    if labels.shape != expert_predictions.shape[:1]:
        raise ValueError(f"Expected {len(expert_predictions)} labels, got shape {tuple(labels.shape)}.")
    dtype = torch.float64 if expert_predictions.dtype == torch.float64 else torch.float32
    squared_error = (expert_predictions.to(dtype) - labels.to(dtype)[:, None]) ** 2
    return (weights.to(dtype) * squared_error).mean(dim=0).sum()


def squared_error(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average the squared errors of predictions, shape (B,), in single precision at least."""
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    return (predictions.to(dtype) - labels.to(dtype)).square().mean()


class LDWSupConLoss(nn.Module):
    """Module form of `ldw_supcon_loss` that keeps the label statistics of the training set.

    Args:
        temperature: See `ldw_supcon_loss`, as for the next three.
        label_bin_width: Width of the bins that make samples positives of each other.
        distance: Kind of label distance.
        distance_scale: Factor on the label distances.
        train_labels: EF in percent of the training set, shape (K,). Defaults to the labels of each batch.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        label_bin_width: float | None = 1.0,
        distance: LabelDistance = "l1",
        distance_scale: float = 1.0,
        train_labels: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.label_bin_width = label_bin_width
        self.distance = distance
        self.distance_scale = distance_scale
        self.label_std = None if train_labels is None else float(train_labels.double().std(correction=0))
        self.reference_labels: torch.Tensor | None
        # In single precision, which every accelerator has.
        reference_labels = None if train_labels is None else train_labels.float()
        self.register_buffer("reference_labels", reference_labels, persistent=False)

    def forward(self, projections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""
        return ldw_supcon_loss(
            projections,
            labels,
            temperature=self.temperature,
            label_bin_width=self.label_bin_width,
            distance=self.distance,
            distance_scale=self.distance_scale,
            label_std=self.label_std,
            reference_labels=self.reference_labels,
        )


class ReweightedRegressionLoss(nn.Module):
    """Module form of `reweighted_regression_loss` that looks up the sample weights by label.

    Args:
        weight_table: `ExpertWeightTable`, or any function from labels, shape (N,), to weights, shape (N, M).
    """

    def __init__(self, weight_table) -> None:
        super().__init__()
        self.weight_table = weight_table

    def forward(self, expert_predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""
        return reweighted_regression_loss(expert_predictions, labels, self.weight_table(labels))
