"""A cell of the comparison, one method with one seed, and what it leaves on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.report import read_metrics_json
from ..training.fitting import COMPARED_ARGUMENTS, EMBEDDINGS_FOLDER
from .settings import ComparisonSettings
from .variants import Variant


__all__ = ["Cell", "CellFolder", "cell_settings", "make_cells", "order_by_dependency"]


@dataclass(frozen=True)
class Cell:
    """One method with one seed.

    Args:
        variant: What is trained.
        seed: Seed of the training.
    """

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.variant.name}, seed {self.seed}"

    def __hash__(self) -> int:
        # The defaults of a method are dictionaries.
        return hash((self.variant.name, self.seed))


@dataclass(frozen=True)
class CellFolder:
    """Files of a cell.

    Args:
        results: Results folder of the comparison.
        method: Name of the method.
        seed: Seed.
    """

    results: Path
    method: str
    seed: int

    @property
    def path(self) -> Path:
        """Folder of the cell."""
        return self.results / "cells" / self.method / f"seed_{self.seed}"

    @property
    def run(self) -> Path:
        """Folder of the training, with the model."""
        return self.path / "run"

    @property
    def metrics(self) -> Path:
        """Metrics on TEST and VAL, written last."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Predictions of the videos of TEST."""
        return self.path / "predictions.csv"

    @property
    def cost(self) -> Path:
        """Parameters, steps and seconds, which differ from run to run."""
        return self.path / "cost.json"

    @property
    def error(self) -> Path:
        """Traceback of a cell that failed."""
        return self.path / "error.txt"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that computes it."""
        return self.path / "cell.lock"

    @property
    def is_finished(self) -> bool:
        """Whether it has its results."""
        return self.metrics.is_file()

    @classmethod
    def of(cls, results: Path, cell: Cell) -> CellFolder:
        """Name the folder of a cell.

        Args:
            results: Results folder of the comparison.
            cell: The cell.

        Returns:
            Its folder.
        """
        return cls(results, cell.variant.name, cell.seed)

    def latest_step(self) -> int:
        """Look up how far the training has come.

        Returns:
            Optimiser steps of stage 1 in the newest checkpoint, 0 without one.
        """
        found = (path.name.rsplit("-", 1)[1] for path in self.run.glob("stage1/checkpoint-*"))
        return max((int(step) for step in found if step.isdigit()), default=0)

    def remove_checkpoints(self) -> None:
        """Remove what only continuing the training needs; the models of the stages stay."""
        for folder in [*self.run.glob("stage*/checkpoint-*"), *self.run.glob(f"stage*/{EMBEDDINGS_FOLDER}")]:
            shutil.rmtree(folder, ignore_errors=True)


def make_cells(variants: Sequence[Variant], seeds: Sequence[int]) -> list[Cell]:
    """Make the cells of a comparison, each once.

    Args:
        variants: What is compared; of two with one name the first counts.
        seeds: Seeds.

    Returns:
        Cells, seed by seed, so that a table of all methods exists as early as possible.
    """
    named = {variant.name: variant for variant in reversed(variants)}
    ordered = list(dict.fromkeys(variant.name for variant in variants))
    return [Cell(named[name], seed) for seed in dict.fromkeys(seeds) for name in ordered]


def order_by_dependency(cells: Sequence[Cell]) -> list[Cell]:
    """Put every cell behind the one that it builds on.

    Args:
        cells: Cells.

    Returns:
        The same cells.
    """
    names = {(cell.variant.name, cell.seed) for cell in cells}

    def waits(cell: Cell) -> bool:
        return (cell.variant.needs, cell.seed) in names

    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return sorted(cells, key=lambda cell: (seeds.index(cell.seed), waits(cell)))


def cell_settings(cell: Cell, settings: ComparisonSettings) -> dict[str, Any]:
    """Write down what makes a cell what it is, beyond what all cells share.

    Args:
        cell: The cell.
        settings: Settings of the comparison.

    Returns:
        Values that JSON can hold.
    """
    method = cell.variant.method
    training = settings.training_arguments(method).to_dict()
    described = {
        "model_config": {**settings.model_fields(method), **method.model_defaults},
        "options": {**method.options, **settings.options(method)},
        "training": {name: training[name] for name in sorted(COMPARED_ARGUMENTS - {"seed"})},
    }
    return json.loads(json.dumps(described, default=str))


def require_same_cell(folder: CellFolder, described: dict[str, Any]) -> None:
    """Refuse to take a finished cell for one of other settings.

    Args:
        folder: Folder of the finished cell.
        described: Result of `cell_settings` now.

    Raises:
        ValueError: If its settings were others.
    """
    before = read_metrics_json(folder.metrics).get("cell_settings", {})
    changed = sorted(name for name in described if described[name] != before.get(name))
    if changed:
        raise ValueError(
            f"{folder.path} holds a cell with another {', '.join(changed)}. Choose another `--output`, or remove that "
            "folder to compute it again."
        )
