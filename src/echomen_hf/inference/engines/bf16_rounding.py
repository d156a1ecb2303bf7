"""Rounding of convolution weights to bfloat16 that keeps the sum of every filter."""

from __future__ import annotations

import torch
from torch import nn


__all__ = ["round_filters", "round_to_bf16"]


@torch.no_grad()
def round_to_bf16(weight: torch.Tensor) -> torch.Tensor:
    """Round weights to bfloat16, and pass the rounding error of each on to the next one of its filter.

    Features behind a ReLU are positive, so a filter whose rounding errors do not cancel shifts its output for every
    clip in the same direction, and the ejection fraction with it. Passed on, errors leave the sum of a filter within
    one rounding of its last weight, while each weight moves by no more than a step of the filter's largest.
    """
    filters = weight.double().flatten(1)  # (out, in, t, h, w) -> (out, in * t * h * w)
    rounded = torch.empty_like(filters)
    lost = filters.new_zeros(len(filters))
    for position in range(filters.shape[1]):
        wanted = filters[:, position] + lost
        rounded[:, position] = wanted.to(torch.bfloat16).double()
        lost = wanted - rounded[:, position]
    return rounded.float().view_as(weight)


def round_filters(encoder: nn.Module) -> None:
    """Round the weights of every convolution, see `round_to_bf16`."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv3d):
            rounded = round_to_bf16(module.weight).to(module.weight.dtype)
            module.weight = nn.Parameter(rounded, requires_grad=False)
