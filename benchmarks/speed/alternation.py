"""Comparisons of a reference with faster implementations, run alternately because the speed of a machine drifts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.errors import Comparer
from benchmarks.speed.side_process import SideError, SideProcess
from benchmarks.speed.workload import Unavailable


__all__ = ["Comparison", "Row", "Side", "largest_difference", "measure", "ratio_statistics"]

SETTLING_SECONDS = 0.1
"""Pause between two sides, so that spinning threads go to sleep."""


@dataclass(frozen=True)
class Side:
    """One implementation of the work."""

    name: str
    workload: str  # `module:Class` of its `Workload`
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the constructor
    # Whether its process starts with `echomen_hf.training.allocator.keep_large_blocks`.
    keep_large_blocks: bool = False


def largest_difference(reference: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Largest difference from the reference."""
    return {"error": float(np.abs(own - reference).max())}


@dataclass(frozen=True)
class Row:
    """A row of the report: one side compared with the reference."""

    name: str
    side: Side
    target: float | None = None  # ratio to reach, if any
    # Largest error allowed. `None`: the error is only reported.
    bound: float | None = None
    # Computes `error` and further values for the report from the values of the reference and the side.
    compare: Comparer = largest_difference
    error_unit: str = "EF points"
    flops: float | None = None  # FLOPs of an item; `None` where they do not determine the time
    precision: str | None = None  # of these FLOPs: `fp32`, `bf16` or `int8`


@dataclass(frozen=True)
class Comparison:
    """Several implementations of the same work, run alternately with one reference."""

    reference: Side
    rows: tuple[Row, ...]
    item: str  # what is counted, such as a clip
    rounds: int = 7
    warm_ups: int = 1  # rounds before these, not counted


def ratio_statistics(reference: list[float], own: list[float]) -> dict[str, float]:
    """Summarise the seconds per item of all rounds."""
    ratios = [before / now for before, now in zip(reference, own)]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "reference_seconds": statistics.median(reference),
        "seconds": statistics.median(own),
    }


def measure(comparison: Comparison, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Run all sides alternately and compare their results, in the reverse order in every other round.

    A side that is not available is skipped. One that fails, or whose error exceeds its bound, is reported as failed,
    and the others go on.
    """
    base = [describe(row, comparison) for row in comparison.rows]
    problems: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        say(f"preparing {', '.join([comparison.reference.name, *(row.side.name for row in comparison.rows)])}")
        reference = start(stack, comparison.reference)
        processes = {row.name: start(stack, row.side) for row in comparison.rows}
        try:
            reference.receive("prepare")
        except (Unavailable, SideError) as error:
            return [{**result, **problem_of(error)} for result in base]
        for name, process in processes.items():
            try:
                process.receive("prepare")
            except (Unavailable, SideError) as error:
                problems[name] = problem_of(error)
        say("running in turns")
        try:
            times = alternate(comparison, reference, processes, problems)
            expected, about_reference = reference.values(), reference.notes()
        except (Unavailable, SideError) as error:
            return [{**result, **problem_of(error)} for result in base]
        results = []
        for result, row in zip(base, comparison.rows):
            if row.name not in problems:
                try:
                    own, notes = processes[row.name].values(), processes[row.name].notes()
                    result |= ratio_statistics(times["reference"], times[row.name])
                    result |= compare_values(row, expected, own)
                    result |= {"notes": notes, "reference_notes": about_reference}
                except (Unavailable, SideError) as error:
                    problems[row.name] = problem_of(error)
            results.append({**result, **problems.get(row.name, {})})
        return results


def start(stack: ExitStack, side: Side) -> SideProcess:
    """Start the process of a side and the preparation of its workload."""
    process = stack.enter_context(SideProcess(side.name, side.workload, side.options, side.keep_large_blocks))
    process.prepare()
    return process


def alternate(
    comparison: Comparison,
    reference: SideProcess,
    processes: dict[str, SideProcess],
    problems: dict[str, dict[str, Any]],
) -> dict[str, list[float]]:
    """Run the sides alternately, and return the seconds per item of every round. Adds failures to `problems`."""
    times: dict[str, list[float]] = {name: [] for name in ("reference", *processes)}
    for number in range(comparison.warm_ups + comparison.rounds):
        order = ["reference", *processes]
        for name in order if number % 2 == 0 else reversed(order):
            if name in problems:
                continue
            time.sleep(SETTLING_SECONDS)
            try:
                seconds = (reference if name == "reference" else processes[name]).run()
            except (Unavailable, SideError) as error:
                if name == "reference":
                    raise
                problems[name] = problem_of(error)
                continue
            if number >= comparison.warm_ups:
                times[name].append(seconds)
    return times


def compare_values(row: Row, expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, Any]:
    """Compare the values of a side with those of the reference: `error` and `status`."""
    if expected.shape != own.shape:
        reason = f"the reference computed values of shape {expected.shape}, this side {own.shape}"
        return {"error": None, "status": "failed", "reason": reason}
    found: dict[str, Any] = row.compare(expected, own)
    if not np.isfinite(found["error"]):
        return {"error": None, "status": "failed", "reason": "the error is not a finite number"}
    if row.bound is not None and found["error"] > row.bound:
        reason = f"an error of {found['error']:.3g} {row.error_unit} is above the bound of {row.bound:g}"
        return {**found, "status": "failed", "reason": reason}
    return {**found, "status": "measured"}


def describe(row: Row, comparison: Comparison) -> dict[str, Any]:
    """The result of a row before anything is measured."""
    return {
        "name": row.name,
        "ratio_median": None,
        "ratio_min": None,
        "ratio_max": None,
        "reference": comparison.reference.name,
        "error": None,
        "error_unit": row.error_unit,
        "bound": row.bound,
        "target": row.target,
        "side": row.side.name,
        "keep_large_blocks": row.side.keep_large_blocks,
        "item": comparison.item,
        "flops": row.flops,
        "precision": row.precision,
        "rounds": comparison.rounds,
        "status": "measured",
    }


def problem_of(error: Unavailable | SideError) -> dict[str, Any]:
    """`status` and `reason` of an error for the report."""
    return {"status": "skipped" if isinstance(error, Unavailable) else "failed", "reason": str(error)}
