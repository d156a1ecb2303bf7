"""Folding of batch normalisation into convolutions, and of equal input channels into one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ...model.r2plus1d_echomen import R2Plus1DEncoder
from ...model.video_processing_echomen import EchoMENVideoProcessor


__all__ = ["fold_batch_norms", "has_equal_channels", "sum_input_channels"]


def fold_batch_norms(encoder: R2Plus1DEncoder) -> R2Plus1DEncoder:
    """Copy an encoder, with every batch normalisation folded into the convolution before it.

    In evaluation mode, batch normalisation multiplies each channel by a constant and adds another, so the convolution
    can do both. The constants are computed in double precision. The normalisation of the pixels is not folded: the
    stem pads with zeros after it, so its mean as a bias would be wrong along the border.
    """
    folded = copy.deepcopy(encoder).eval().requires_grad_(False)
    for conv, parent, name in list(normalised_convolutions(folded)):
        fold_batch_norm(conv, cast(nn.BatchNorm3d, parent.get_submodule(name)))
        setattr(parent, name, nn.Identity())
    return folded


def normalised_convolutions(encoder: nn.Module) -> Iterator[tuple[nn.Conv3d, nn.Sequential, str]]:
    """Find the convolutions that a batch normalisation follows."""
    for parent in encoder.modules():
        if not isinstance(parent, nn.Sequential):
            continue
        previous: nn.Module | None = None
        for name, module in parent.named_children():
            if isinstance(module, nn.BatchNorm3d):
                if not isinstance(previous, nn.Conv3d):
                    raise ValueError(f"Batch normalisation {name} follows {type(previous).__name__}, no convolution.")
                yield previous, parent, name
            # The temporal convolution of a factorised pair is the last layer of a sequence of its own.
            previous = module[-1] if isinstance(module, nn.Sequential) else module


def fold_batch_norm(conv: nn.Conv3d, norm: nn.BatchNorm3d) -> None:
    """Fold a batch normalisation into the convolution before it."""
    dtype = conv.weight.dtype
    exact = copy.deepcopy(norm).double()
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        conv.bias.double() if conv.bias is not None else None,
        cast(torch.Tensor, exact.running_mean),
        cast(torch.Tensor, exact.running_var),
        exact.eps,
        exact.weight,
        exact.bias,
    )
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def has_equal_channels(processor: EchoMENVideoProcessor) -> bool:
    """Return whether the clips of a video processor hold the same numbers in all channels."""
    return not processor.do_normalize or len(set(processor.image_mean)) == len(set(processor.image_std)) == 1


def sum_input_channels(encoder: R2Plus1DEncoder) -> None:
    """Make an encoder take one channel instead of several equal ones, by summing their weights."""
    first = cast(nn.Conv3d, encoder.stem[0])
    weight = first.weight.double().sum(dim=1, keepdim=True).to(first.weight.dtype)  # (out, C, ...) -> (out, 1, ...)
    first.weight = nn.Parameter(weight, requires_grad=False)
    first.in_channels = 1
