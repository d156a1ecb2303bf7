"""Cells of a comparison (one method with one seed each) and their files."""

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


__all__ = ["Cell", "CellFolder", "cell_settings", "make_cells", "order_by_dependency", "require_same_cell"]


@dataclass(frozen=True)
class Cell:
    """One method with one seed."""

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
    """Files of a cell in the results folder of a comparison."""

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
        """Metrics on TEST and VAL. This file is written last."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Predictions on TEST."""
        return self.path / "predictions.csv"

    @property
    def cost(self) -> Path:
        """Parameters, steps and seconds."""
        return self.path / "cost.json"

    @property
    def error(self) -> Path:
        """Traceback, if the cell failed."""
        return self.path / "error.txt"

    @property
    def log(self) -> Path:
        """Output of its process."""
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        """Lock of the process that computes it."""
        return self.path / "cell.lock"

    @property
    def is_finished(self) -> bool:
        """Whether its results are there."""
        return self.metrics.is_file()

    @classmethod
    def of(cls, results: Path, cell: Cell) -> CellFolder:
        """Folder of a cell in a results folder."""
        return cls(results, cell.variant.name, cell.seed)

    def latest_step(self) -> int:
        """Number of optimiser steps of stage 1 in the newest checkpoint, 0 if there is none."""
        found = (path.name.rsplit("-", 1)[1] for path in self.run.glob("stage1/checkpoint-*"))
        return max((int(step) for step in found if step.isdigit()), default=0)

    def remove_checkpoints(self) -> None:
        """Remove what only a resumed training needs. The models of the stages stay."""
        for folder in [*self.run.glob("stage*/checkpoint-*"), *self.run.glob(f"stage*/{EMBEDDINGS_FOLDER}")]:
            shutil.rmtree(folder, ignore_errors=True)


def make_cells(variants: Sequence[Variant], seeds: Sequence[int]) -> list[Cell]:
    """Make every cell once, seed by seed, so that a table of all methods exists as early as possible."""
    named = {variant.name: variant for variant in reversed(variants)}
    ordered = list(dict.fromkeys(variant.name for variant in variants))
    return [Cell(named[name], seed) for seed in dict.fromkeys(seeds) for name in ordered]


def order_by_dependency(cells: Sequence[Cell]) -> list[Cell]:
    """Sort the cells of every seed so that each comes after the one that it builds on."""
    names = {(cell.variant.name, cell.seed) for cell in cells}

    def waits(cell: Cell) -> bool:
        return (cell.variant.needs, cell.seed) in names

    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return sorted(cells, key=lambda cell: (seeds.index(cell.seed), waits(cell)))


def cell_settings(cell: Cell, settings: ComparisonSettings) -> dict[str, Any]:
    """Settings that distinguish a cell from others, as JSON values."""
    method = cell.variant.method
    training = settings.training_arguments(method).to_dict()
    described = {
        "model_config": {**settings.model_fields(method), **method.model_defaults},
        "options": {**method.options, **settings.options(method)},
        "training": {name: training[name] for name in sorted(COMPARED_ARGUMENTS - {"seed"})},
    }
    return json.loads(json.dumps(described, default=str))


def require_same_cell(folder: CellFolder, described: dict[str, Any]) -> None:
    """Raise a `ValueError` if a finished cell was computed with other settings."""
    before = read_metrics_json(folder.metrics).get("cell_settings", {})
    changed = sorted(name for name in described if described[name] != before.get(name))
    if changed:
        raise ValueError(
            f"{folder.path} holds a cell with another {', '.join(changed)}. Choose another `--output`, or remove that "
            "folder to compute it again."
        )
