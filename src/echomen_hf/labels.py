"""Heart-failure categories, label bins, counts and sample weights of ejection fractions."""

from __future__ import annotations

import math
from functools import cache
from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from .model.heart_failure_category_echomen import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES, heart_failure_category


__all__ = [
    "CATEGORY_TITLES",
    "EF_RANGE",
    "HEART_FAILURE_CATEGORIES",
    "BinWeightTable",
    "ExpertWeightTable",
    "bin_counts",
    "category_masks",
    "expert_sample_weights",
    "heart_failure_category",
    "label_bins",
    "num_label_bins",
]

EF_RANGE = (0.0, 100.0)
"""Lowest and highest ejection fraction that bins cover, in percent."""

NAN_LABELS = "Labels contain NaN; every sample needs an ejection fraction in percent to be binned."

ROUNDING = 1e-9
"""Added to a position in bins, which may lie a rounding error below the edge of its bin."""

Labels = TypeVar("Labels", NDArray[np.float64], torch.Tensor)


def category_masks(ejection_fractions: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Mark the samples of every heart-failure category.

    Args:
        ejection_fractions: Reference EF in percent, shape (N,).

    Returns:
        Boolean masks of shape (N,) under `"all"`, `"hfref"`, `"hfmref"` and `"hfpef"`.
    """
    values = np.asarray(ejection_fractions, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("NaN is no ejection fraction and belongs to no heart-failure category.")
    upper_bounds = [high for _, high in HEART_FAILURE_CATEGORIES.values()][:-1]
    membership = np.digitize(values, upper_bounds)
    masks = {"all": np.ones(values.shape, dtype=bool)}
    masks.update({name: membership == position for position, name in enumerate(HEART_FAILURE_CATEGORIES)})
    return masks


@overload
def label_bins(labels: torch.Tensor, bin_width: float = 1.0) -> torch.Tensor: ...


@overload
def label_bins(labels: ArrayLike, bin_width: float = 1.0) -> NDArray[np.int64]: ...


def label_bins(labels: ArrayLike | torch.Tensor, bin_width: float = 1.0) -> NDArray[np.int64] | torch.Tensor:
    """Assign labels to equally spaced bins over [0, 100].

    Args:
        labels: EF in percent, shape (N,), an array or a tensor on any device. Values outside go to the end bins.
        bin_width: Width of a bin in EF points.

    Returns:
        Bin index of each label, int64, shape (N,), of the kind and device of the labels.
    """
    low, _ = EF_RANGE
    last = num_label_bins(bin_width) - 1
    if isinstance(labels, torch.Tensor):
        # A look at the labels of an accelerator would make the processor wait for it.
        if labels.device.type == "cpu" and labels.isnan().any():
            raise ValueError(NAN_LABELS)
        kept = labels.detach() if labels.dtype in (torch.float32, torch.float64) else labels.float()
        return torch.bucketize(kept.contiguous(), _first_of_bins(bin_width, kept.dtype, kept.device), right=True)
    values = np.asarray(labels, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(NAN_LABELS)
    return np.clip(np.floor((values - low) / bin_width + ROUNDING), 0, last).astype(np.int64)


@cache
def _first_of_bins(bin_width: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Find the smallest number of every bin but the first, on a device that need not have double precision."""
    low, _ = EF_RANGE
    number = np.arange(1, num_label_bins(bin_width))

    def belongs(first: NDArray) -> NDArray[np.bool_]:
        return (first.astype(np.float64) - low) / bin_width + ROUNDING >= number

    first = (low + (number - ROUNDING) * bin_width).astype(np.float32 if dtype == torch.float32 else np.float64)
    # The type may have rounded an edge to either side of that in double precision.
    first = np.where(belongs(first), first, np.nextafter(first, np.inf, dtype=first.dtype))
    below = np.nextafter(first, -np.inf, dtype=first.dtype)
    return torch.from_numpy(np.where(belongs(below), below, first)).to(device)


def num_label_bins(bin_width: float = 1.0) -> int:
    """Count the bins that cover [0, 100], B in section 2.2 of the paper; the last one may be narrower."""
    if not bin_width > 0:
        raise ValueError(f"`bin_width` must be a positive number of EF points, got {bin_width}.")
    low, high = EF_RANGE
    return math.ceil((high - low) / bin_width)


def bin_counts(labels: ArrayLike | torch.Tensor, bin_width: float = 1.0) -> NDArray[np.int64]:
    """Count the samples per label bin, f = (f_1, ..., f_B) of section 2.2 of the paper, shape (B,)."""
    return np.bincount(label_bins(as_array(labels), bin_width), minlength=num_label_bins(bin_width))


def as_array(labels: ArrayLike | torch.Tensor) -> NDArray[np.float64]:
    """Convert labels of any kind and on any device to a float64 array."""
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().double().numpy()
    return np.asarray(labels, dtype=np.float64)


class BinWeightTable:
    """Weights of samples by label bin.

    Args:
        weights: Weights of every bin, for each of M experts or losses, shape (B, M).
        bin_width: Width of a bin in EF points.
    """

    def __init__(self, weights: NDArray[np.float64], bin_width: float = 1.0) -> None:
        self.weights = weights
        self.bin_width = bin_width
        self._tables: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def __call__(self, labels: Labels) -> Labels:
        """Look up the weights, shape (N, M), of labels, shape (N,), an array or a tensor on any device."""
        if isinstance(labels, torch.Tensor):
            dtype = labels.dtype if labels.is_floating_point() else torch.get_default_dtype()
            place = (dtype, labels.device)
            if place not in self._tables:
                self._tables[place] = torch.as_tensor(self.weights, dtype=dtype).to(labels.device)
            return self._tables[place][label_bins(labels, self.bin_width)]
        return self.weights[label_bins(labels, self.bin_width)]


class ExpertWeightTable(BinWeightTable):
    """Weight of every label bin for every expert, w = f^-p with p_m = m / (M - 1) (equation 4).

    Counts are floored before they are inverted; otherwise a bin with one sample would outweigh the others by orders of
    magnitude. Each expert's weights have mean 1 over the training set; otherwise the p = 1 expert would learn some 90
    times more slowly than the p = 0 one.

    Args:
        labels: EF in percent of the training set, shape (N,).
        num_experts: Number of experts M; a single expert gets p = 0, that is equal weights.
        bin_width: Width of a bin in EF points.
        min_count: Smallest count used for a bin. Defaults to 1 % of N, at least 1; 1 is exactly the paper.
        exponents: p of every expert, shape (M,), instead of m / (M - 1).
    """

    def __init__(
        self,
        labels: ArrayLike | torch.Tensor,
        num_experts: int = 3,
        bin_width: float = 1.0,
        min_count: float | None = None,
        exponents: ArrayLike | None = None,
    ) -> None:
        values = as_array(labels)
        if values.size == 0:
            raise ValueError("Sample weights need at least one training label, got none.")
        if num_experts < 1:
            raise ValueError(f"`num_experts` must be at least 1, got {num_experts}.")
        floor = max(1.0, 0.01 * values.size) if min_count is None else float(min_count)
        if not floor > 0:
            raise ValueError(f"`min_count` must be positive, got {min_count}.")
        if exponents is None:
            exponents = [m / max(num_experts - 1, 1) for m in range(num_experts)]
        self.exponents = np.asarray(exponents, dtype=np.float64)
        if self.exponents.shape != (num_experts,):
            raise ValueError(f"`exponents` must hold one number for each of {num_experts} experts, got {exponents}.")
        counts = np.maximum(bin_counts(values, bin_width), floor).astype(np.float64)
        weights = counts[:, None] ** -self.exponents  # (B, M)
        super().__init__(weights / weights[label_bins(values, bin_width)].mean(axis=0), bin_width)


def expert_sample_weights(
    labels: Labels, num_experts: int = 3, bin_width: float = 1.0, min_count: float | None = None
) -> Labels:
    """Weight every training sample for every expert (equation 4); every column has mean 1.

    Args:
        labels: EF in percent of the training set, shape (N,).
        num_experts: Number of experts M.
        bin_width: Width of a bin in EF points.
        min_count: Smallest count used for a bin. Defaults to 1 % of N; 1 is exactly the paper.

    Returns:
        Weights, shape (N, M).
    """
    values = labels if isinstance(labels, torch.Tensor) else np.asarray(labels, dtype=np.float64)
    return ExpertWeightTable(labels, num_experts, bin_width, min_count)(values)
