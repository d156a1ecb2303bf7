"""Data sets that show something else in every epoch."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset


__all__ = ["EpochDataset"]


class EpochDataset(Dataset):
    """Knows the number of the epoch, even in loader processes that outlive one."""

    def __init__(self) -> None:
        # Shared memory, so that loader processes which outlive an epoch see the next one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is shown from now on."""
        self._epoch.fill_(epoch)
