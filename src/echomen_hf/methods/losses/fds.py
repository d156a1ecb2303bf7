"""Feature distribution smoothing (Yang et al., ICML 2021, 3.2): neighbouring labels share feature statistics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from ...labels import label_bins, num_label_bins
from .lds import gaussian_kernel


__all__ = ["FeatureStatistics", "calibrate_features", "merge_statistics", "smooth_over_bins"]

BIN_WIDTH = 1.0
"""EF points per bin: 100 bins, whose number is part of the model's shape."""


def merge_statistics(
    count: torch.Tensor, mean: torch.Tensor, squares: torch.Tensor, features: torch.Tensor, bins: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add a batch to the statistics of the bins, without cancellation (Chan et al. 1979).

    These are the number of samples per bin, (B,), their mean, (B, D), and the sums of squared deviations, (B, D).
    """
    membership = F.one_hot(bins, len(count)).T.to(features.dtype)  # (B, N)
    batch_count = membership.sum(dim=1)
    batch_mean = membership @ features / batch_count.clamp(min=1)[:, None]
    batch_squares = membership @ (features - batch_mean[bins]).square()
    share = (batch_count / (count + batch_count).clamp(min=1))[:, None]
    difference = batch_mean - mean
    squares = squares + batch_squares + difference.square() * count[:, None] * share
    return count + batch_count, mean + difference * share, squares


def smooth_over_bins(values: torch.Tensor, seen: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Average the statistics of neighbouring bins under a kernel, reflected at both ends.

    Bins without a sample have no statistics and do not count; if every bin has one, this is the plain convolution. The
    result is 0 where no bin under the kernel has a sample.
    """
    padding = len(kernel) // 2
    present = seen.to(values.dtype)[:, None]
    stacked = torch.cat([values * present, present], dim=1).T[:, None]  # (B, D + 1) -> (D + 1, 1, B)
    smoothed = F.conv1d(F.pad(stacked, (padding, padding), mode="reflect"), kernel.to(values)[None, None])
    total, weight = smoothed[:-1, 0].T, smoothed[-1:, 0].T
    return torch.where(weight > 0, total / torch.where(weight > 0, weight, torch.ones_like(weight)), 0.0)


def calibrate_features(
    features: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    smoothed_mean: torch.Tensor,
    smoothed_variance: torch.Tensor,
    lowest_ratio: float = 0.1,
    highest_ratio: float = 10.0,
) -> torch.Tensor:
    """Replace the mean and variance of the bin in features, (N, D), by the smoothed ones.

    The ratio of the variances is clamped. A feature whose variance is 0 stays as it is.
    """
    has_spread = variance > 0
    ratio = smoothed_variance / torch.where(has_spread, variance, torch.ones_like(variance))
    scale = ratio.clamp(lowest_ratio, highest_ratio).sqrt()
    return torch.where(has_spread, (features - mean) * scale + smoothed_mean, features)


class FeatureStatistics(nn.Module):
    """Statistics of the features of every label bin, as buffers, so that they are saved with the model.

    Smoothing uses the statistics of earlier epochs; those of the running epoch join them when it ends.
    """

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        shape = (num_label_bins(BIN_WIDTH), embedding_size)
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.smoothed_mean: torch.Tensor
        self.smoothed_variance: torch.Tensor
        self.seen: torch.Tensor
        self.epoch_count: torch.Tensor
        self.epoch_mean: torch.Tensor
        self.epoch_squares: torch.Tensor
        self.num_epochs: torch.Tensor
        for name in ("mean", "variance", "smoothed_mean", "smoothed_variance", "epoch_mean", "epoch_squares"):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("seen", torch.zeros(shape[0], dtype=torch.bool))
        self.register_buffer("epoch_count", torch.zeros(shape[0]))
        self.register_buffer("num_epochs", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything."""
        for buffer in self.buffers():
            init.zeros_(buffer)

    @torch.no_grad()
    def observe(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch to the statistics of the running epoch."""
        with torch.autocast(features.device.type, enabled=False):
            merged = merge_statistics(
                self.epoch_count,
                self.epoch_mean,
                self.epoch_squares,
                features.to(self.epoch_mean.dtype),
                label_bins(labels, BIN_WIDTH),
            )
        for buffer, value in zip((self.epoch_count, self.epoch_mean, self.epoch_squares), merged):
            buffer.copy_(value)

    @torch.no_grad()
    def end_epoch(
        self, momentum: float = 0.9, kernel_size: int = 5, sigma: float = 2.0, start_update: int = 0
    ) -> None:
        """Add the statistics of the running epoch to those of earlier ones, and smooth them over the bins.

        A bin without earlier statistics takes the new ones; epochs before `start_update` do not count.
        """
        if self.num_epochs >= start_update:
            found = self.epoch_count > 0
            variance = self.epoch_squares / (self.epoch_count - 1).clamp(min=1)[:, None]
            kept = torch.where(found & self.seen, momentum, (~found).to(variance.dtype))[:, None]
            self.mean.lerp_(self.epoch_mean, 1 - kept)
            self.variance.lerp_(variance, 1 - kept)
            self.seen |= found
            kernel = torch.from_numpy(gaussian_kernel(kernel_size, sigma))
            self.smoothed_mean.copy_(smooth_over_bins(self.mean, self.seen, kernel))
            self.smoothed_variance.copy_(smooth_over_bins(self.variance, self.seen, kernel))
        for buffer in (self.epoch_count, self.epoch_mean, self.epoch_squares):
            buffer.zero_()
        self.num_epochs += 1

    def smooth(self, features: torch.Tensor, labels: torch.Tensor, start_smooth: int = 1) -> torch.Tensor:
        """Calibrate features by the statistics of earlier epochs, from the epoch `start_smooth` on."""
        if self.num_epochs < start_smooth:
            return features
        bins = label_bins(labels, BIN_WIDTH)
        calibrated = calibrate_features(
            features, self.mean[bins], self.variance[bins], self.smoothed_mean[bins], self.smoothed_variance[bins]
        )
        return torch.where(self.seen[bins, None], calibrated, features)
