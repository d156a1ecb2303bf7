"""Tensors of all processes, with the gradient of one's own."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


__all__ = ["gather_with_gradient"]


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate the tensors of all processes; the local one keeps its gradient.

    Args:
        tensor: Local tensor, with the same shape in every process but perhaps for the first dimension.

    Returns:
        Tensors of all processes in the order of their ranks; the same tensor with a single process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    sizes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(sizes, len(tensor))
    padded = torch.cat([tensor.detach(), tensor.new_zeros(max(sizes) - len(tensor), *tensor.shape[1:])])
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded.contiguous())
    parts = [part[:size] for part, size in zip(gathered, sizes)]
    parts[dist.get_rank()] = tensor
    return torch.cat(parts)
