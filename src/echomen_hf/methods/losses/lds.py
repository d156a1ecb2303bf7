"""Label distribution smoothing (Yang et al., ICML 2021, 3.1): the frequency of a label is that around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from ...labels import BinWeightTable, bin_counts, label_bins


__all__ = ["gaussian_kernel", "lds_weights"]


def gaussian_kernel(size: int, sigma: float) -> NDArray[np.float64]:
    """Sample a symmetric Gaussian, with sum 1."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"The size of a smoothing kernel must be odd and positive, got {size}.")
    if not sigma > 0:
        raise ValueError(f"`sigma` of a smoothing kernel must be positive, got {sigma}.")
    kernel = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return kernel / kernel.sum()


def lds_weights(
    train_labels: NDArray[np.float64], kernel_size: int = 5, sigma: float = 2.0, bin_width: float = 1.0
) -> BinWeightTable:
    """Weight samples by the inverse of the smoothed square root of the counts, with mean 1 over the training set.

    A bin far from every training label has the weight of the rarest other one.
    """
    root_counts = np.sqrt(bin_counts(train_labels, bin_width))
    effective = convolve1d(root_counts, gaussian_kernel(kernel_size, sigma), mode="constant")
    weights = 1 / np.where(effective > 0, effective, effective[effective > 0].min())
    weights /= weights[label_bins(train_labels, bin_width)].mean()
    return BinWeightTable(weights[:, None], bin_width)
