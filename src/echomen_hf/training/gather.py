"""Exchange of tensors between processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


__all__ = ["gather_with_gradient", "loss_of_all_processes"]


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate the tensors of all processes, by rank; the local one keeps its gradient.

    Only the first dimension may differ between processes.
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


def loss_of_all_processes(loss: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Compute a loss that compares samples with each other over the samples of all processes.

    Gradients are averaged over processes, but each process has only its share of the gradient of this loss. The
    gradient is therefore multiplied by the number of processes, so that the average is that of the whole batch; the
    value is not.
    """
    value = loss(*[gather_with_gradient(tensor) for tensor in tensors])
    num_processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return value if num_processes == 1 else value + (num_processes - 1) * (value - value.detach())
