"""R(2+1)D, the video encoder of the paper."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_echomen import EchoMENConfig


class R2Plus1DStem(nn.Sequential):
    """First layer of R(2+1)D: a 7 x 7 spatial convolution, then a temporal one over 3 frames (Tran et al. 2018)."""

    def __init__(self, config: EchoMENConfig) -> None:
        mid, out, stride = cast(int, config.stem_mid_channels), config.hidden_sizes[0], config.stem_stride
        super().__init__(
            nn.Conv3d(config.num_channels, mid, (1, 7, 7), stride=(1, stride, stride), padding=(0, 3, 3), bias=False),
            batch_norm(mid, config),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid, out, (3, 1, 1), padding=(1, 0, 0), bias=False),
            batch_norm(out, config),
            nn.ReLU(inplace=True),
        )


class Conv2Plus1D(nn.Sequential):
    """A 3 x 3 x 3 convolution factorised into a spatial and a temporal one with a non-linearity between them."""

    def __init__(self, in_channels: int, out_channels: int, mid: int, stride: int, config: EchoMENConfig) -> None:
        super().__init__(
            nn.Conv3d(in_channels, mid, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False),
            batch_norm(mid, config),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid, out_channels, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
        )


class R2Plus1DBlock(GradientCheckpointingLayer):
    """Residual block of two factorised convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: EchoMENConfig) -> None:
        super().__init__()
        # As many parameters as the full 3 x 3 x 3 convolution would have (section 3.5 of Tran et al.).
        mid = (27 * in_channels * out_channels) // (9 * in_channels + 3 * out_channels)
        self.conv1 = nn.Sequential(
            Conv2Plus1D(in_channels, out_channels, mid, stride, config),
            batch_norm(out_channels, config),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            Conv2Plus1D(out_channels, out_channels, mid, 1, config), batch_norm(out_channels, config)
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride=stride, bias=False), batch_norm(out_channels, config)
            )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        residual = hidden_state if self.downsample is None else self.downsample(hidden_state)
        return self.relu(self.conv2(self.conv1(hidden_state)) + residual)


class R2Plus1DStage(nn.Sequential):
    """Blocks of one width; the first block of every stage but the first halves time and space."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, stride: int, config: EchoMENConfig) -> None:
        blocks = [R2Plus1DBlock(in_channels, out_channels, stride, config)]
        blocks += [R2Plus1DBlock(out_channels, out_channels, 1, config) for _ in range(depth - 1)]
        super().__init__(*blocks)


class R2Plus1DEncoder(nn.Module):
    """Video encoder f of the paper: R(2+1)D of any depth and width, named as torchvision names its parts."""

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__()
        self.stem = R2Plus1DStem(config)
        in_channels = config.hidden_sizes[0]
        self.stage_names = [f"layer{number}" for number in range(1, len(config.depths) + 1)]
        for position, (name, depth, channels) in enumerate(zip(self.stage_names, config.depths, config.hidden_sizes)):
            stride = 1 if position == 0 else 2
            self.add_module(name, R2Plus1DStage(in_channels, channels, depth, stride, config))
            in_channels = channels

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # Processors give single precision, and the weights may have another.
        pixel_values = pixel_values.to(cast(torch.Tensor, self.stem[0].weight).dtype)
        hidden_state = self.stem(pixel_values.transpose(1, 2))  # (B, T, C, H, W) -> (B, C, T, H, W)
        for name in self.stage_names:
            hidden_state = self.get_submodule(name)(hidden_state)
        # Averaging thousands of numbers in half precision would cost the digits that the heads need.
        dtype = torch.promote_types(hidden_state.dtype, torch.float32)
        return hidden_state.mean(dim=(2, 3, 4), dtype=dtype)  # (B, C, T, H, W) -> (B, D)


def batch_norm(channels: int, config: EchoMENConfig) -> nn.BatchNorm3d:
    """Make a batch normalisation layer with the configured epsilon and momentum."""
    return nn.BatchNorm3d(channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)


@contextmanager
def frozen_batch_statistics(module: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are while a checkpointed block is computed again for the backward pass."""
    # Their base class, since those of several processes may have been synchronised.
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training]
    recorded = [(layer.momentum, cast(torch.Tensor, layer.num_batches_tracked).clone()) for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, (momentum, num_batches_tracked) in zip(layers, recorded):
            layer.momentum = momentum
            cast(torch.Tensor, layer.num_batches_tracked).copy_(num_batches_tracked)


__all__ = ["R2Plus1DBlock", "R2Plus1DEncoder", "R2Plus1DStage", "frozen_batch_statistics"]
