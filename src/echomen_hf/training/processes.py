"""State that the processes of a training share, and state that they must not share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import nn
from transformers import set_seed


__all__ = [
    "broadcast_buffers",
    "is_distributed",
    "require_shared_folder",
    "sees_folder_of_first_process",
    "seed_processes_apart",
    "synchronised_batch_norms",
]


def is_distributed() -> bool:
    """Tell whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def broadcast_buffers(model: nn.Module) -> None:
    """Give the model of every process the buffers of the first one, which is the one that is saved.

    Each process has measured the batch statistics of its own clips since the last step began.
    """
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def seed_processes_apart(seed: int) -> None:
    """Give every process but the first random numbers of its own, the same in every run.

    Noise and dropout would otherwise be the same in all of them. The order of videos and their clips have generators
    of their own, which this leaves alone.
    """
    if is_distributed() and dist.get_rank() > 0:
        set_seed(int(np.random.SeedSequence((seed, dist.get_rank())).generate_state(1)[0]))


@contextmanager
def synchronised_batch_norms(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Let batch normalisation take its statistics over the clips of all processes, within the context."""
    layers: list[Any] = [layer for layer in model.modules() if enabled and type(layer) is nn.BatchNorm3d]
    try:
        for layer in layers:
            # By its class, so that parameters, buffers and whoever refers to the layer stay as they are.
            layer.__class__ = nn.SyncBatchNorm
            layer.process_group = None
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.BatchNorm3d


def require_shared_folder(folder: Path) -> None:
    """Refuse an output folder that some process does not share with the first one, before hours of training.

    Stage 2 and a resumed run read in every process what the first one wrote.
    """
    seen = sees_folder_of_first_process(folder)
    if not all(seen):
        apart = ", ".join(str(rank) for rank, sees in enumerate(seen) if not sees)
        raise OSError(
            f"{folder} is not the same folder in all processes: {apart} of {len(seen)} do not see what process 0 "
            "wrote to it. Put `output_dir` on a file system that all machines mount under the same path."
        )


def sees_folder_of_first_process(folder: Path) -> list[bool]:
    """Find out which processes, by rank, see what the first one writes to a folder; it is made if missing."""
    if not is_distributed():
        return [True]
    token = [str(np.random.SeedSequence().entropy)]
    dist.broadcast_object_list(token, src=0)
    path = folder / f".shared-by-processes-{token[0]}"
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    dist.barrier()
    seen: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(seen, path.exists())
    if dist.get_rank() == 0:
        path.unlink()
    return seen
