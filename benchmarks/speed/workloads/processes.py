"""Inference by one process on all cores, against several processes that share the cores."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.side_process import SideProcess
from benchmarks.speed.workload import Unavailable, Workload
from echomen_hf.runs.processes import available_cores


__all__ = ["ConcurrentInference"]


class ConcurrentInference(Workload):
    """Several processes that encode batches at the same time, each on its share of the cores."""

    def __init__(self, processes: int, workload: str, options: dict[str, Any], batches: int = 2) -> None:
        cores = available_cores()
        if cores < processes:
            raise Unavailable(f"this machine has {cores} cores, too few for {processes} processes")
        self.batches = batches
        self.children = [
            SideProcess(f"process {number}", workload, options, keep_large_blocks=True, num_threads=cores // processes)
            for number in range(processes)
        ]
        # Also if this process ends by an error; a closed input ends them in any case.
        self._closing = weakref.finalize(self, close_all, self.children)
        for child in self.children:
            child.prepare()
        for child in self.children:
            child.receive("prepare")

    def run(self) -> float:
        """Run all processes at the same time."""
        items = 0.0
        for _ in range(self.batches):
            for child in self.children:
                child.send("run")
            items += sum(child.receive("run")["items"] for child in self.children)
        return items

    def values(self) -> NDArray[np.floating]:
        """Values of the first process. The others compute the same."""
        return self.children[0].values()

    def notes(self) -> dict[str, Any]:
        """Number of processes and their memory."""
        peaks = [child.notes()["peak_memory_bytes"] for child in self.children]
        return {"processes": len(self.children), "peak_memory_bytes_of_processes": peaks}


def close_all(children: list[SideProcess]) -> None:
    """End processes."""
    for child in children:
        child.close(at_once=True)
