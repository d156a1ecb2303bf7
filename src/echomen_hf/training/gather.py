"""Exchange of tensors between processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from .processes import is_distributed


__all__ = ["gather_with_gradient", "loss_of_all_processes"]


def gather_with_gradient(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Concatenate the tensors of all processes, by rank; the local ones keep their gradients.

    Only the first dimension may differ between processes, in which the tensors of one process must agree.
    """
    if not is_distributed():
        return tensors
    length = torch.tensor([len(tensors[0])], device=tensors[0].device)
    lengths = [torch.empty_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    sizes = torch.cat(lengths).tolist()
    joined = []
    for tensor in tensors:
        padded = torch.cat([tensor.detach(), tensor.new_zeros(max(sizes) - len(tensor), *tensor.shape[1:])])
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded.contiguous())
        parts = [part[:size] for part, size in zip(gathered, sizes)]
        parts[dist.get_rank()] = tensor
        joined.append(torch.cat(parts))
    return tuple(joined)


def loss_of_all_processes(loss: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """Compute a loss that compares samples with each other over the samples of all processes.

    Gradients are averaged over processes, but each process has only its share of the gradient of this loss. The
    gradient is therefore multiplied by the number of processes, so that the average is that of the whole batch; the
    value is not.
    """
    value = loss(*gather_with_gradient(*tensors))
    return value + (dist.get_world_size() - 1) * (value - value.detach()) if is_distributed() else value
