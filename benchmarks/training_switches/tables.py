"""Time, memory and error on VAL with combinations of training switches."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.training_switches.step_cost import StepCost, StepSetting, measure_in_new_process
from echomen_hf.evaluation.report import markdown_table


__all__ = [
    "SWITCHES",
    "accuracy_of_switches",
    "accuracy_table",
    "cost_of_switches",
    "cost_table",
    "final_mae",
]

SWITCHES: dict[str, dict[str, Any]] = {
    "none": {},
    "channels_last": {"channels_last": True},
    "keep_large_blocks": {"keep_large_blocks": True},
    "bf16": {"bf16": True},
    "activation_checkpointing": {"activation_checkpointing": True},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 4},
    "channels_last + keep_large_blocks": {"channels_last": True, "keep_large_blocks": True},
    "channels_last + keep_large_blocks + bf16": {"channels_last": True, "keep_large_blocks": True, "bf16": True},
    "these three + activation_checkpointing": {
        "channels_last": True,
        "keep_large_blocks": True,
        "bf16": True,
        "activation_checkpointing": True,
    },
    "these three + gradient_accumulation_steps": {
        "channels_last": True,
        "keep_large_blocks": True,
        "bf16": True,
        "gradient_accumulation_steps": 4,
    },
    "all five": {
        "channels_last": True,
        "keep_large_blocks": True,
        "bf16": True,
        "activation_checkpointing": True,
        "gradient_accumulation_steps": 4,
    },
}
"""Combinations by title. Gradients are accumulated over 4 micro-batches."""


def cost_of_switches(
    batch_sizes: Sequence[int],
    base: StepSetting,
    switches: dict[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Measure every combination of switches at every batch size, relative to no switches at the same size."""
    rows = []
    for batch_size in batch_sizes:
        first: StepCost | None = None
        for title, values in (switches or SWITCHES).items():
            cost = measure_in_new_process(replace(base, batch_size=batch_size, switches=values))
            first = first or cost
            comparable = not (cost.failure or first.failure)
            rows.append(
                {
                    "batch_size": batch_size,
                    "title": title,
                    "switches": values,
                    "step_seconds": cost.step_seconds,
                    "peak_bytes": cost.peak_bytes,
                    "bytes_before": cost.bytes_before,
                    "failure": cost.failure,
                    "speed": first.median_seconds / cost.median_seconds if comparable else None,
                    "memory": cost.peak_bytes / first.peak_bytes if comparable else None,
                }
            )
            print(f"batch {batch_size}, {title}: {cost.failure or f'{cost.median_seconds:.2f} s'}", flush=True)
    return rows


def cost_table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of `cost_of_switches`."""
    cells = []
    for row in rows:
        head = [str(row["batch_size"]), row["title"]]
        if row["failure"]:
            cells.append([*head, row["failure"], "", "", ""])
            continue
        speed, memory = (f"{row[name]:.2f}" if row[name] else "" for name in ("speed", "memory"))
        seconds = f"{statistics.median(row['step_seconds']):.2f}"
        cells.append([*head, seconds, speed, f"{row['peak_bytes'] / 2**30:.2f}", memory])
    return markdown_table(["Batch", "Switches", "Seconds a step", "Speed", "Peak memory, GiB", "Memory"], cells)


def accuracy_of_switches(
    train_command: Sequence[str],
    switches: dict[str, dict[str, Any]],
    seeds: Sequence[int],
    batch_size: int,
    output: Path,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Train with every combination of switches and every seed, and compare the errors on VAL with the first one.

    `noise` is two standard errors of a difference of means of runs that differ in their seeds only, from the standard
    deviation between seeds, pooled over all combinations. Finished runs are not repeated.
    """
    if jobs < 1:
        raise ValueError(f"jobs, the number of trainings at a time, must be at least 1, got {jobs}.")
    names = {name for combinations in (SWITCHES, switches) for values in combinations.values() for name in values}
    off = {name: 1 if name == "gradient_accumulation_steps" else False for name in sorted(names)}

    def train(number: int, title: str, values: dict[str, Any], seed: int) -> float:
        folder = output / f"{number:02d}-seed{seed}"
        settings = {**off, **values}
        settings["per_device_train_batch_size"] = batch_size // settings["gradient_accumulation_steps"]
        flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        command = [*train_command, *flags, "--output_dir", str(folder), "--seed", str(seed)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode != 0:
            problem = f"{' '.join(command)} ended with status {child.returncode}:\n{child.stderr[-2000:]}"
            raise ValueError(problem) if child.returncode == 2 else RuntimeError(problem)
        error = final_mae(folder)
        print(f"{title}, seed {seed}: MAE {error:.3f} on VAL", flush=True)
        return error

    with ThreadPoolExecutor(jobs) as pool:
        trained = [
            [pool.submit(train, number, title, values, seed) for seed in seeds]
            for number, (title, values) in enumerate(switches.items())
        ]
        try:
            errors = [[training.result() for training in trainings] for trainings in trained]
        except BaseException:
            # Otherwise, leaving the block would wait for trainings that have not started.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    noise = 2 * _spread_of_seeds(errors) * math.sqrt(2 / len(seeds))
    rows = []
    for (title, values), own in zip(switches.items(), errors, strict=True):
        difference = statistics.mean(own) - statistics.mean(errors[0])
        rows.append(
            {
                "title": title,
                "switches": values,
                "seeds": list(seeds),
                "mae": own,
                "difference": difference,
                "noise": noise,
                "within_noise": abs(difference) <= noise,
            }
        )
    return rows


def _spread_of_seeds(errors: list[list[float]]) -> float:
    """Standard deviation between seeds, pooled over combinations because there are few seeds."""
    if len(errors[0]) < 2:
        return float("nan")
    return math.sqrt(statistics.mean(statistics.variance(own) for own in errors))


def final_mae(folder: Path) -> float:
    """MAE on VAL of the best epoch of the last stage of a finished run."""
    state_file = sorted(folder.glob("stage*/trainer_state.json"))[-1]
    state = json.loads(state_file.read_text(encoding="utf-8"))
    [error] = [
        entry["eval_mae"]
        for entry in state["log_history"]
        if entry["step"] == state["best_global_step"] and "eval_mae" in entry
    ]
    return error


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of `accuracy_of_switches`."""
    cells = []
    for number, row in enumerate(rows):
        compared = [f"{row['difference']:+.2f}", f"± {row['noise']:.2f}"] if number else ["", ""]
        errors = [f"{error:.2f}" for error in row["mae"]]
        cells.append([row["title"], *errors, f"{statistics.mean(row['mae']):.2f}", *compared])
    seeds = [f"MAE, seed {seed}" for seed in rows[0]["seeds"]]
    return markdown_table(["Switches", *seeds, "Mean", "Difference", "Seed noise"], cells)
