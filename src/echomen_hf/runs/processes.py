"""The processes of a run and the processor cores they may use."""

from __future__ import annotations

import os


__all__ = ["available_cores", "is_main_process", "process_rank"]


def available_cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_rank() -> tuple[int, int]:
    """Rank of this process and number of processes, as a launcher states them; 0 and 1 without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Tell whether this process, the first or only one, writes the run's files."""
    return process_rank()[0] == 0
