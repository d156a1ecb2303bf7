"""Cells in parallel processes, each behind the one that it builds on, with the time that is left."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..runs.processes import available_cores
from .cell_run import run_cell
from .cells import Cell, CellFolder
from .rules import count_encoder_steps
from .settings import ComparisonSettings


__all__ = ["Scheduler", "default_jobs", "default_threads"]

POLL_SECONDS = 0.5


def default_jobs() -> int:
    """Choose the number of processes: one per accelerator, or one per CPU core without any.

    Returns:
        Number of processes.
    """
    if torch.accelerator.is_available():
        return torch.accelerator.device_count()
    return available_cores()


def default_threads(jobs: int) -> int:
    """Divide the CPU cores among processes.

    Args:
        jobs: Number of processes.

    Returns:
        Threads per process.
    """
    return max(available_cores() // max(jobs, 1), 1)


@dataclass
class Scheduler:
    """Computes cells, and goes on when one of them fails.

    Args:
        settings: Settings of the comparison.
        results: Results folder.
        num_train_videos: Videos of TRAIN, from which work is estimated.
        jobs: Cells at a time, each in a process of its own; 0 computes one after the other in this process, as for
            debugging.
        threads: CPU threads of a cell.
        keep_checkpoints: Whether finished cells keep what continuing their training would need.
        on_finished: Called when a cell has its results.
        console: Where progress is shown.
    """

    settings: ComparisonSettings
    results: Path
    num_train_videos: int
    jobs: int = 1
    threads: int = 1
    keep_checkpoints: bool = False
    on_finished: Callable[[Cell], object] | None = None
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self, cells: Sequence[Cell]) -> list[Cell]:
        """Compute cells.

        Args:
            cells: Cells that are not finished, see `order_by_dependency`.

        Returns:
            Those that failed; each has its traceback in `error.txt`.
        """
        failed: list[Cell] = []
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=self.console, speed_estimate_period=1e9) as progress:
            self._bar = Bar(progress, {cell: self.work_of(cell) for cell in cells}, self.results)
            if self.jobs == 0:
                for cell in cells:
                    self._note(cell, self._run_here(cell), failed)
            else:
                self._run_in_processes(list(cells), failed)
        return failed

    def work_of(self, cell: Cell) -> int:
        """Estimate what a cell costs.

        Args:
            cell: The cell.

        Returns:
            Optimiser steps of stage 1, at least 1.
        """
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
            with self._bar.followed():
                run_cell(cell, self.settings, self.results, keep_checkpoints=self.keep_checkpoints)
        except Exception:
            write_error(CellFolder.of(self.results, cell), traceback.format_exc())
        finally:
            torch.set_num_threads(threads)
        return CellFolder.of(self.results, cell).is_finished

    def _run_in_processes(self, waiting: list[Cell], failed: list[Cell]) -> None:
        running: dict[Cell, tuple[SpawnProcess, int]] = {}
        try:
            while waiting or running:
                for cell, (process, _) in list(running.items()):
                    if process.exitcode is not None:
                        folder = CellFolder.of(self.results, cell)
                        if process.exitcode != 0 and not folder.error.is_file():
                            # Killed by the system, for instance for want of memory; a signal is negative.
                            ending = f"The process ended with status {process.exitcode}; see {folder.log}.\n"
                            write_error(folder, ending)
                        del running[cell]
                        self._note(cell, process.exitcode == 0 and folder.is_finished, failed)
                while len(running) < self.jobs and (free := self._next(waiting, running)) is not None:
                    waiting.remove(free)
                    places = {place for _, place in running.values()}
                    place = next(number for number in range(self.jobs) if number not in places)
                    running[free] = self._start(free, place), place
                self._bar.update()
                time.sleep(POLL_SECONDS)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.join(10)

    def _next(self, waiting: Sequence[Cell], running: dict[Cell, tuple[SpawnProcess, int]]) -> Cell | None:
        unfinished = {(cell.variant.name, cell.seed) for cell in [*waiting, *running]}
        free = (cell for cell in waiting if (cell.variant.needs, cell.seed) not in unfinished)
        return next(free, None)

    def _start(self, cell: Cell, place: int) -> SpawnProcess:
        CellFolder.of(self.results, cell).error.unlink(missing_ok=True)
        arguments = (cell, self.settings, self.results, self.keep_checkpoints, self.threads)
        process = multiprocessing.get_context("spawn").Process(target=cell_process, args=arguments, name=cell.name)
        environment = {"OMP_NUM_THREADS": str(self.threads)}
        if torch.cuda.is_available():
            environment["CUDA_VISIBLE_DEVICES"] = visible_device(place)
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # a new process begins with those of this one
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
        self._bar.finish(cell, is_finished)


class Bar:
    """Progress of all cells together, counted in optimiser steps.

    Args:
        progress: Display.
        work: Estimated steps by cell.
        results: Results folder.
    """

    def __init__(self, progress: Progress, work: dict[Cell, int], results: Path) -> None:
        self.progress, self.results = progress, results
        self.open = dict(work)
        self.first = {cell: CellFolder.of(results, cell).latest_step() for cell in work}
        self.closed = 0
        self.num_cells = len(work)
        total = sum(max(steps - self.first[cell], 1) for cell, steps in work.items())
        self.task = progress.add_task(f"0 of {self.num_cells} cells", total=total)

    def update(self) -> None:
        """Look up how far every cell has come."""
        done = self.closed
        for cell, steps in self.open.items():
            done += min(max(CellFolder.of(self.results, cell).latest_step() - self.first[cell], 0), steps)
        self.progress.update(self.task, completed=done)

    def finish(self, cell: Cell, succeeded: bool) -> None:
        """Close a cell, and print a line about it.

        Args:
            cell: The cell.
            succeeded: Whether it has its results.
        """
        self.closed += max(self.open.pop(cell) - self.first[cell], 1)
        number = self.num_cells - len(self.open)
        self.progress.update(self.task, description=f"{number} of {self.num_cells} cells")
        self.update()
        left = self.progress.tasks[0].time_remaining
        outlook = "" if left is None or number == self.num_cells else f", about {format_seconds(left)} left"
        outcome = "finished" if succeeded else f"FAILED, see {CellFolder.of(self.results, cell).error}"
        stamp = time.strftime("%H:%M:%S")
        self.progress.console.print(
            f"{stamp}  {number}/{self.num_cells}  {cell.name}: {outcome}{outlook}", highlight=False, soft_wrap=True
        )

    def followed(self) -> Follower:
        """Keep the display up to date while this process is busy.

        Returns:
            Context in which that happens.
        """
        return Follower(self)


class Follower:
    """Thread that updates a bar.

    Args:
        bar: The bar.
    """

    def __init__(self, bar: Bar) -> None:
        self.bar, self.stop = bar, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self.bar.update()

    def __enter__(self) -> Follower:
        """Start."""
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        self.stop.set()
        self.thread.join()


def cell_process(
    cell: Cell, settings: ComparisonSettings, results: Path, keep_checkpoints: bool, threads: int
) -> None:
    """Compute a cell as the whole life of a process, which prints to the cell's log and ends with its parent.

    Args:
        cell: The cell.
        settings: Settings of the comparison.
        results: Results folder.
        keep_checkpoints: See `run_cell`.
        threads: CPU threads.
    """
    folder = CellFolder.of(results, cell)
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.log, "a", encoding="utf-8") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    # The devices that the parent has found need not be those that this process may use.
    settings.training.__dict__.pop("_setup_devices", None)
    try:
        run_cell(cell, settings, results, keep_checkpoints=keep_checkpoints)
    except Exception:
        write_error(folder, traceback.format_exc())
        traceback.print_exc()
        sys.exit(1)


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, and end this one then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_error(folder: CellFolder, text: str) -> None:
    """Record why a cell failed.

    Args:
        folder: Its folder.
        text: Traceback.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.error.write_text(text, encoding="utf-8")


def visible_device(place: int) -> str:
    """Choose the accelerator of a process among those that this process may use.

    Args:
        place: Number of the process.

    Returns:
        Value of CUDA_VISIBLE_DEVICES.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = allowed.split(",") if allowed else [str(number) for number in range(torch.cuda.device_count())]
    return devices[place % len(devices)]


def format_seconds(seconds: float) -> str:
    """Write a duration as hours and minutes.

    Args:
        seconds: Duration.

    Returns:
        Text such as `2 h 05 min`.
    """
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"
