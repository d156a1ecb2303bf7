"""Parallel processes for the cells of a comparison, with their progress.

No library's pool is used. Those of the standard library and of loky break when a worker is killed. pebble's does not,
but it would replace only the start and the end of a process here, not the order, devices, logs and progress.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..runs.private_text import hide_parents_of, private_streams, without_parents
from ..runs.processes import available_cores
from .cell_run import run_cell
from .cells import Cell, CellFolder
from .rules import count_encoder_steps
from .settings import ComparisonSettings


__all__ = ["Scheduler", "default_jobs", "default_threads"]


def default_jobs() -> int:
    """One process per accelerator, or one per CPU core if there is no accelerator."""
    if torch.accelerator.is_available():
        return torch.accelerator.device_count()
    return available_cores()


def default_threads(jobs: int) -> int:
    """Number of CPU threads per process."""
    return max(available_cores() // max(jobs, 1), 1)


@dataclass
class Scheduler:
    """Computes cells, each after the one that it builds on. The failure of a cell does not stop the others."""

    settings: ComparisonSettings
    results: Path
    num_train_videos: int
    jobs: int = 1  # processes at a time; 0 computes all cells in this process
    threads: int = 1  # of each cell
    keep_checkpoints: bool = False
    on_finished: Callable[[Cell], object] | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self, cells: Sequence[Cell]) -> list[Cell]:
        """Compute unfinished cells in the order of `order_by_dependency`, and return those that failed."""
        failed: list[Cell] = []
        hide_parents_of(self.private_paths)
        with CellProgress({cell: self.work_of(cell) for cell in cells}, self.results, self.console) as self._progress:
            if self.jobs == 0:
                for cell in cells:
                    self._note(cell, self._run_here(cell), failed)
            else:
                self._run_in_processes(list(cells), failed)
        return failed

    @property
    def private_paths(self) -> list[str | Path | None]:
        """Paths whose folders may have patients' names, which no log is to hold."""
        data = self.settings.data
        return [self.results, data.data_dir, data.frame_cache, self.settings.backbone_checkpoint]

    def work_of(self, cell: Cell) -> int:
        """Estimate the work of a cell: optimiser steps of stage 1, at least 1."""
        if not cell.variant.is_trained:
            return 1
        args = self.settings.training_arguments(cell.variant.method)
        needed = cell.variant.needs
        if needed is not None and CellFolder(self.results, needed, cell.seed).is_finished:
            return 1
        return max(count_encoder_steps(args.for_stage(args.stages[0], "."), self.num_train_videos), 1)

    def _run_here(self, cell: Cell) -> bool:
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            run_cell(cell, self.settings, self.results, keep_checkpoints=self.keep_checkpoints)
        except Exception:
            write_error(CellFolder.of(self.results, cell), traceback.format_exc())
        finally:
            torch.set_num_threads(threads)
        return CellFolder.of(self.results, cell).is_finished

    def _run_in_processes(self, waiting: list[Cell], failed: list[Cell]) -> None:
        running: dict[int, tuple[Cell, SpawnProcess]] = {}  # by place, which decides the GPU
        try:
            while waiting or running:
                for place in range(self.jobs):
                    unfinished = {(cell.variant.name, cell.seed) for cell in waiting}
                    unfinished |= {(cell.variant.name, cell.seed) for cell, _ in running.values()}
                    ready = (cell for cell in waiting if (cell.variant.needs, cell.seed) not in unfinished)
                    if place not in running and (cell := next(ready, None)) is not None:
                        waiting.remove(cell)
                        running[place] = cell, self._start(cell, place)
                ended = connection.wait([process.sentinel for _, process in running.values()])
                for place, (cell, process) in list(running.items()):
                    if process.sentinel in ended:
                        process.join()
                        del running[place]
                        folder = CellFolder.of(self.results, cell)
                        if process.exitcode != 0 and not folder.error.is_file():
                            # Killed by the system, for instance for lack of memory; a signal is negative.
                            ending = f"The process ended with status {process.exitcode}; see {folder.log}.\n"
                            write_error(folder, ending)
                        self._note(cell, process.exitcode == 0 and folder.is_finished, failed)
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.join(10)

    def _start(self, cell: Cell, place: int) -> SpawnProcess:
        CellFolder.of(self.results, cell).error.unlink(missing_ok=True)
        arguments = (cell, self.settings, self.results, self.keep_checkpoints, self.threads, self.private_paths)
        process = multiprocessing.get_context("spawn").Process(target=cell_process, args=arguments, name=cell.name)
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        if torch.cuda.is_available():
            environment["CUDA_VISIBLE_DEVICES"] = visible_device(place)
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # inherited by the new process
        try:
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        return process

    def _note(self, cell: Cell, is_finished: bool, failed: list[Cell]) -> None:
        if is_finished:
            if self.on_finished is not None:
                self.on_finished(cell)
        else:
            failed.append(cell)
        self._progress.finish(cell, is_finished)


class CellProgress(Progress):
    """Progress of all cells in optimiser steps, which are looked up whenever it is drawn."""

    def __init__(self, work: dict[Cell, int], results: Path, console: Console) -> None:
        self.results, self.remaining, self.num_cells, self.closed = results, dict(work), len(work), 0
        self.first = {cell: self.steps_of(cell) for cell in work}
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        super().__init__(*columns, console=console, refresh_per_second=2, speed_estimate_period=1e9)
        total = sum(max(steps - self.first[cell], 1) for cell, steps in work.items())
        self.all_cells = self.add_task(f"0 of {self.num_cells} cells", total=total)

    def steps_of(self, cell: Cell) -> int:
        """Number of optimiser steps of a cell so far."""
        return CellFolder.of(self.results, cell).latest_step()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Look up how far every cell has come, and draw it."""
        if self.tasks:
            open_steps = (min(max(self.steps_of(c) - self.first[c], 0), steps) for c, steps in self.remaining.items())
            self.update(self.all_cells, completed=self.closed + sum(open_steps))
        return super().get_renderables()

    def finish(self, cell: Cell, succeeded: bool) -> None:
        """Close a cell, and print a line about it."""
        self.closed += max(self.remaining.pop(cell) - self.first[cell], 1)
        number = self.num_cells - len(self.remaining)
        self.update(self.all_cells, description=f"{number} of {self.num_cells} cells", refresh=True)
        task = self.tasks[0]
        outlook = ""
        if task.elapsed and task.completed and task.total and self.remaining:
            outlook = f", about {format_seconds(task.elapsed * (task.total / task.completed - 1))} left"
        outcome = "finished" if succeeded else f"FAILED, see {CellFolder.of(self.results, cell).error}"
        self.console.print(
            f"{time.strftime('%H:%M:%S')}  {number}/{self.num_cells}  {cell.name}: {outcome}{outlook}",
            highlight=False,
            soft_wrap=True,
        )


def cell_process(
    cell: Cell,
    settings: ComparisonSettings,
    results: Path,
    keep_checkpoints: bool,
    threads: int,
    private_paths: list[str | Path | None],
) -> None:
    """Compute a cell in a process of its own, which prints to the cell's log and ends with its parent."""
    folder = CellFolder.of(results, cell)
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.log, "a", encoding="utf-8") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    # The parent's devices need not be those of this process.
    settings.training.__dict__.pop("_setup_devices", None)
    hide_parents_of(private_paths)
    with private_streams():
        try:
            run_cell(cell, settings, results, keep_checkpoints=keep_checkpoints)
        except Exception:
            write_error(folder, traceback.format_exc())
            traceback.print_exc()
            sys.exit(1)


def end_with_parent() -> None:
    """End this process when its parent ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_error(folder: CellFolder, text: str) -> None:
    """Record why a cell failed."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.error.write_text(without_parents(text), encoding="utf-8")


def visible_device(place: int) -> str:
    """Value of CUDA_VISIBLE_DEVICES for a process, one of the devices that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = allowed.split(",") if allowed else [str(number) for number in range(torch.cuda.device_count())]
    return devices[place % len(devices)]


def format_seconds(seconds: float) -> str:
    """Write a duration as `2 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
