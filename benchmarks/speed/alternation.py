"""Comparisons of a reference with faster ways to do the same: taken in turns, because a machine's speed drifts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.judges import Judge
from benchmarks.speed.side_process import SideError, SideProcess
from benchmarks.speed.workload import Unavailable


__all__ = ["Comparison", "Row", "Side", "largest_difference", "measure", "ratio_statistics"]

SETTLING_SECONDS = 0.1
"""Pause between two sides, in which threads that wait actively fall asleep."""


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Args:
        name: What it is, in a few words.
        workload: `module:Class` of its `Workload`.
        options: Keyword arguments of the constructor.
        keep_large_blocks: Whether its process starts with `echomen_hf.training.allocator.keep_large_blocks`.
    """

    name: str
    workload: str
    options: dict[str, Any] = field(default_factory=dict)
    keep_large_blocks: bool = False


def largest_difference(reference: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Judge a result by its largest difference from the reference.

    Args:
        reference: Values of the reference.
        own: Values of the same shape.

    Returns:
        `error`, in the unit of the values.
    """
    return {"error": float(np.abs(own - reference).max())}


@dataclass(frozen=True)
class Row:
    """A line of the report: one side against the reference.

    Args:
        name: Name of the result.
        side: The faster side.
        target: Ratio that is aimed at; `None` if there is none.
        bound: Largest error; a larger one makes the row a failure. `None` if the error is only reported.
        judge: Computes `error`, and anything else worth telling, from the values of the reference and of the side.
        error_unit: What the error is measured in.
        flops: Floating-point operations of an item; `None` where they do not decide the time.
        precision: Precision that they are done in, `fp32`, `bf16` or `int8`.
    """

    name: str
    side: Side
    target: float | None = None
    bound: float | None = None
    judge: Judge = largest_difference
    error_unit: str = "EF points"
    flops: float | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Several ways to do the same work, taken in turns with one reference.

    Args:
        reference: What a user has today.
        rows: Sides that are compared with it.
        item: What is counted, such as `clip`.
        rounds: Times that every side is run after the warm-up.
        warm_ups: Runs of every side before that, not counted.
    """

    reference: Side
    rows: tuple[Row, ...]
    item: str
    rounds: int = 7
    warm_ups: int = 1


def ratio_statistics(reference: list[float], own: list[float]) -> dict[str, float]:
    """Condense the times of all rounds.

    Args:
        reference: Seconds per item of the reference in every round.
        own: Seconds per item of the side in the same rounds.

    Returns:
        Median, least and largest ratio of a round, and the median seconds of both.
    """
    ratios = [before / now for before, now in zip(reference, own)]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "reference_seconds": statistics.median(reference),
        "seconds": statistics.median(own),
    }


def measure(comparison: Comparison, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Run all sides in turns and compare what they computed.

    The order is turned round in every other round. A side that cannot be had here is skipped; one that fails, or whose
    error is above its bound, is reported as a failure and does not stop the others.

    Args:
        comparison: What to compare.
        say: Receives a line about what is being done.

    Returns:
        One result per row, see `report.RESULT_FIELDS`.
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
                    result |= judgement(row, expected, own)
                    result |= {"notes": notes, "reference_notes": about_reference}
                except (Unavailable, SideError) as error:
                    problems[row.name] = problem_of(error)
            results.append({**result, **problems.get(row.name, {})})
        return results


def start(stack: ExitStack, side: Side) -> SideProcess:
    """Start the process of a side, which then prepares its workload.

    Args:
        stack: Ends the process.
        side: The side.

    Returns:
        The process.
    """
    process = stack.enter_context(SideProcess(side.name, side.workload, side.options, side.keep_large_blocks))
    process.prepare()
    return process


def alternate(
    comparison: Comparison,
    reference: SideProcess,
    processes: dict[str, SideProcess],
    problems: dict[str, dict[str, Any]],
) -> dict[str, list[float]]:
    """Run the sides in turns.

    Args:
        comparison: What is compared.
        reference: Process of the reference.
        processes: Process of every row.
        problems: What is wrong with rows that are left out; receives those whose side fails.

    Returns:
        Seconds per item in every round, for `reference` and by name of the row.

    Raises:
        SideError: If the reference fails.
        Unavailable: If it cannot run here.
    """
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


def judgement(row: Row, expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, Any]:
    """Compare what a side computed with what the reference computed.

    Args:
        row: Row of the report.
        expected: Values of the reference.
        own: Values of the side.

    Returns:
        `error` and `status`, with a `reason` if the error is too large.
    """
    if expected.shape != own.shape:
        reason = f"the reference computed values of shape {expected.shape}, this side {own.shape}"
        return {"error": None, "status": "failed", "reason": reason}
    judged: dict[str, Any] = row.judge(expected, own)
    if not np.isfinite(judged["error"]):
        return {"error": None, "status": "failed", "reason": "the error is not a finite number"}
    if row.bound is not None and judged["error"] > row.bound:
        reason = f"an error of {judged['error']:.3g} {row.error_unit} is above the bound of {row.bound:g}"
        return {**judged, "status": "failed", "reason": reason}
    return {**judged, "status": "measured"}


def describe(row: Row, comparison: Comparison) -> dict[str, Any]:
    """Write down what is compared, before anything is measured.

    Args:
        row: Row of the report.
        comparison: Comparison that it belongs to.

    Returns:
        The result without its measurements.
    """
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
    """Turn an error into what the report says of it.

    Args:
        error: The error.

    Returns:
        `status` and `reason`.
    """
    return {"status": "skipped" if isinstance(error, Unavailable) else "failed", "reason": str(error)}
