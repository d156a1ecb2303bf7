"""Run of a comparison: all checks, the missing cells, then the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from rich.console import Console

from ..data import EvaluationClips, load_rows, raise_for_problems, validate_videos
from ..model.clip_sampling_echomen import parse_protocol
from ..training.fitting import require_metric
from .cells import Cell, CellFolder, cell_settings, make_cells, order_by_dependency, require_same_cell
from .record import claim_results_folder, describe_comparison
from .report import build_report, write_results
from .results import CELLS_FILE
from .rules import require_equal_steps
from .scheduler import Scheduler
from .settings import ComparisonSettings
from .variants import REFERENCE_METHOD, Variant, make_sweep, select_methods


__all__ = ["ComparisonOutcome", "run_comparison"]

SPLITS = {"train": "TRAIN", "validation": "VAL", "test": "TEST"}


@dataclass(frozen=True)
class ComparisonOutcome:
    """Outcome of a comparison.

    Args:
        cells: Requested cells.
        failed: Cells that failed. The traceback is in `error.txt` in the folder of the cell.
        tables: Tables in Markdown.
    """

    cells: Sequence[Cell]
    failed: Sequence[Cell]
    tables: Sequence[Path]


def run_comparison(
    settings: ComparisonSettings,
    methods: Sequence[str],
    seeds: Sequence[int],
    output: str | Path,
    *,
    sweeps: Sequence[str] = (),
    jobs: int = 1,
    threads: int = 1,
    keep_checkpoints: bool = False,
    published: bool = False,
    console: Console | None = None,
) -> ComparisonOutcome:
    """Compare methods. An interrupted comparison is resumed, and finished cells are not computed again.

    Args:
        settings: Settings of the comparison.
        methods: Names of methods or groups, see `select_methods`.
        seeds: Seeds of the trainings.
        output: Results folder. Its tables include the finished cells of earlier runs.
        sweeps: Names of sweeps over EchoMEN's options, see `SWEEPS`.
        jobs: Number of cells computed at a time, each in its own process. With 0, all run in this process.
        threads: CPU threads per cell.
        keep_checkpoints: Whether finished cells keep their training checkpoints.
        published: Whether to add the numbers of the paper below the tables.
        console: Console for the progress. Defaults to standard error.

    Returns:
        Cells, failures and tables.

    Raises:
        ValueError: If a name, a setting or the data set is invalid, or the folder holds other results. No cell is
            started then.
    """
    results = Path(output)
    of_sweeps = {name: make_sweep(name, settings.training, dict(settings.model_config)) for name in sweeps}
    chosen = [*select_methods(methods), *(variant for variants in of_sweeps.values() for variant in variants)]
    if of_sweeps:
        chosen = [*select_methods([REFERENCE_METHOD]), *chosen]
    if not chosen or not seeds:
        raise ValueError("A comparison needs at least one method and one seed.")
    if min(seeds) < 0:
        raise ValueError(f"Seeds are not negative, got {', '.join(map(str, seeds))}.")
    if jobs < 0 or threads < 1:
        raise ValueError(f"`jobs` is not negative and `threads` at least 1, got {jobs} and {threads}.")
    cells = make_cells(chosen, seeds)
    videos = load_data(settings)
    check(settings, [cell.variant for cell in cells if cell.seed == seeds[0]], videos)

    if (results / CELLS_FILE).is_file() and not (results / "cells").is_dir():
        raise ValueError(
            f"{results} holds a finished comparison without the folders of its cells, to which nothing can be added. "
            "Choose another `--output`."
        )
    claim_results_folder(results, describe_comparison(settings, videos))
    try:
        with FileLock(results / "comparison.lock", timeout=0):
            for cell in cells:
                folder = CellFolder.of(results, cell)
                if folder.is_finished:
                    require_same_cell(folder, cell_settings(cell, settings))
            open_cells = [cell for cell in cells if not CellFolder.of(results, cell).is_finished]
            options: dict[str, Any] = {} if console is None else {"console": console}
            scheduler = Scheduler(
                settings,
                results,
                len(videos["train"]),
                jobs=jobs,
                threads=threads,
                keep_checkpoints=keep_checkpoints,
                on_finished=lambda _: write_results(results),
                **options,
            )
            failed = scheduler.run(order_by_dependency(open_cells))
            tables = build_report(results, sweeps=of_sweeps, published=published)
    except Timeout:
        raise ValueError(f"Another run is writing to {results}. Wait for it, or choose another `--output`.") from None
    return ComparisonOutcome(cells, failed, tables)


def load_data(settings: ComparisonSettings) -> Mapping[str, Any]:
    """Load the videos by split. Raises an error for a missing split or for videos that cannot be read."""
    data = settings.data
    videos = load_rows(settings.read_data_set())
    for split, name in SPLITS.items():
        if split not in videos:
            raise ValueError(
                f"{data.data_dir} has no {split} videos, which a comparison needs. Mark some as {name} in the Split "
                "column of its FileList.csv, or divide all by `--split_by patient`."
            )
        if data.validate_data != "none":
            raise_for_problems(validate_videos(videos[split], level=cast(Any, data.validate_data)))
    return videos


def check(settings: ComparisonSettings, variants: Sequence[Variant], videos: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for anything that would let a cell fail or be unfair, before any training starts."""
    parse_protocol(settings.protocol)
    configs = settings.check(variants)
    require_equal_steps(settings, variants, len(videos["train"]))
    for variant, config in zip(variants, configs, strict=True):
        method, args = variant.method, settings.training_arguments(variant.method)
        processor = method.processor_class.for_model(config)
        evaluation = EvaluationClips(videos["validation"], processor, parse_protocol(settings.data.eval_protocol))
        for stage in args.stages:
            require_metric(args.for_stage(stage, ".").metric_for_best_model, evaluation)
