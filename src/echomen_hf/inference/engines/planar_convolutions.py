"""Factorised convolutions in two dimensions, for which CPUs have better kernels than for three.

With channels last in memory, the frames are a batch of images, and the pixels of all frames make one image whose rows
are frames. So a spatial convolution is one of images, and a temporal one runs along the columns of that image, both
without a copy.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


__all__ = ["PlanarSpatialConv", "PlanarTemporalConv", "convolve_space", "convolve_time", "use_planar_convolutions"]


def convolve_space(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] = (0, 0, 0),
) -> torch.Tensor:
    """Convolve each frame on its own, (B, C, T, H, W) -> (B, D, T, H', W')."""
    frames = features.transpose(1, 2).flatten(0, 1)  # (B, C, T, H, W) -> (B * T, C, H, W)
    convolved = F.conv2d(frames, weight.squeeze(2), bias, stride[1:], padding[1:])
    return convolved.unflatten(0, (len(features), -1)).transpose(1, 2)  # (B * T, D, H', W') -> (B, D, T, H', W')


def convolve_time(
    features: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] = (0, 0, 0),
) -> torch.Tensor:
    """Convolve each pixel along time, (B, C, T, H, W) -> (B, D, T', H, W)."""
    image = features.flatten(3)  # (B, C, T, H, W) -> (B, C, T, H * W)
    convolved = F.conv2d(image, weight.squeeze(4), bias, stride[:2], padding[:2])
    return convolved.unflatten(3, features.shape[3:])  # (B, D, T', H * W) -> (B, D, T', H, W)


class PlanarSpatialConv(nn.Conv3d):
    """Convolution of kernel (1, h, w), see `convolve_space`."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Convolve features of shape (B, C, T, H, W)."""
        return convolve_space(features, self.weight, self.bias, self.stride, cast(tuple[int, ...], self.padding))


class PlanarTemporalConv(nn.Conv3d):
    """Convolution of kernel (t, 1, 1), see `convolve_time`."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Convolve features of shape (B, C, T, H, W)."""
        return convolve_time(features, self.weight, self.bias, self.stride, cast(tuple[int, ...], self.padding))


def use_planar_convolutions(encoder: nn.Module, *, temporal: bool = True) -> None:
    """Replace the factorised convolutions of an encoder by two-dimensional ones of the same weights."""
    for parent in list(encoder.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is not nn.Conv3d:
                continue
            planar = planar_class(conv)
            if planar is PlanarSpatialConv or (planar is PlanarTemporalConv and temporal):
                setattr(parent, name, with_weights_of(conv, planar))


def planar_class(conv: nn.Conv3d) -> type[PlanarSpatialConv] | type[PlanarTemporalConv] | None:
    """Find the two-dimensional form of a convolution."""
    kernel, stride, padding = geometry(conv)
    if kernel[1:] == (1, 1) and kernel[0] > 1 and stride[1:] == (1, 1) and padding[1:] == (0, 0):
        return PlanarTemporalConv
    if kernel[0] == 1 and kernel[1:] != (1, 1) and stride[0] == 1 and padding[0] == 0:
        return PlanarSpatialConv
    return None


def geometry(conv: nn.Conv3d) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
    """Return kernel, stride and padding of a convolution."""
    parts = (conv.kernel_size, conv.stride, conv.padding)
    return cast(tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]], parts)


def with_weights_of(conv: nn.Conv3d, planar: type[PlanarSpatialConv] | type[PlanarTemporalConv]) -> nn.Conv3d:
    """Make the two-dimensional form of a convolution."""
    kernel, stride, padding = geometry(conv)
    made = planar(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")
    made.weight, made.bias = conv.weight, conv.bias
    return made
