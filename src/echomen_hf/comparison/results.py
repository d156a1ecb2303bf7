"""Results of the finished cells: their folders, the two files that can replace the folders, and long tables.

`cells.parquet` (metrics, settings, cost) and `predictions.parquet` hold everything that tables, tests and figures are
made from. A results folder can be published or kept without its folder `cells`, which also has the models.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..evaluation.report import read_metrics_json, read_predictions_csv
from ..metrics import regression_line
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from ..runs.files import read_json, replacing
from .cells import CellFolder


__all__ = [
    "CELLS_FILE",
    "FinishedCell",
    "absolute_errors",
    "cost_table",
    "long_table",
    "read_finished_cells",
    "seeds_of",
    "write_archive",
]

RESULT_COLUMNS = ("method", "seed", "category", "metric", "value", "n", "protocol")
CELLS_FILE = "cells.parquet"
PREDICTIONS_FILE = "predictions.parquet"


@dataclass(frozen=True)
class FinishedCell:
    """Results of a cell."""

    method: str
    seed: int
    document: dict[str, Any]  # content of metrics.json
    predictions: pd.DataFrame  # on TEST, see `read_predictions_csv`
    cost: dict[str, Any]  # content of cost.json

    @property
    def title(self) -> str:
        """Name of the method in tables and figures."""
        return self.document["title"]


def read_finished_cells(results: Path, order: Sequence[str]) -> list[FinishedCell]:
    """Read the finished cells of a results folder, sorted by method (unknown ones last) and seed."""
    found = _read_folders(results) or _read_archive(results)
    place = {name: position for position, name in enumerate(order)}
    found.sort(key=lambda cell: (place.get(cell.method, len(place)), cell.method, cell.seed))
    for cell in found[1:]:
        first = found[0]
        if not cell.predictions[["FileName", "EF"]].equals(first.predictions[["FileName", "EF"]]):
            files = [CellFolder(results, one.method, one.seed).predictions for one in (cell, first)]
            raise ValueError(
                f"{files[0]} and {files[1]} are about different videos. Remove the cell that does not belong here."
            )
    return found


def _read_folders(results: Path) -> list[FinishedCell]:
    found = []
    for path in results.glob("cells/*/seed_*/metrics.json"):
        folder = CellFolder(results, path.parent.parent.name, int(path.parent.name.removeprefix("seed_")))
        predictions = read_predictions_csv(folder.predictions)
        cost = read_json(folder.cost) if folder.cost.is_file() else {}
        found.append(FinishedCell(folder.method, folder.seed, read_metrics_json(path), predictions, cost))
    return found


def write_archive(results: Path, cells: Sequence[FinishedCell]) -> None:
    """Write everything that is known about finished cells to two Parquet files."""
    rows = [
        {
            "method": cell.method,
            "seed": cell.seed,
            "document": json.dumps(cell.document),
            "cost": json.dumps(cell.cost),
            # Cells have different columns, for instance one per expert.
            "columns": json.dumps(list(cell.predictions.columns)),
        }
        for cell in cells
    ]
    predictions = pd.concat([cell.predictions.assign(method=cell.method, seed=cell.seed) for cell in cells])
    for name, table in ((CELLS_FILE, pd.DataFrame(rows)), (PREDICTIONS_FILE, predictions)):
        with replacing(results / name) as partial:
            table.to_parquet(partial, index=False, compression="zstd")


def _read_archive(results: Path) -> list[FinishedCell]:
    if not (results / CELLS_FILE).is_file():
        return []
    predictions = dict(list(pd.read_parquet(results / PREDICTIONS_FILE).groupby(["method", "seed"])))
    return [
        FinishedCell(
            row.method,
            row.seed,
            json.loads(row.document),
            predictions[row.method, row.seed][json.loads(row.columns)].reset_index(drop=True),
            json.loads(row.cost),
        )
        for row in pd.read_parquet(results / CELLS_FILE).itertuples(index=False)
    ]


def absolute_errors(cells: Sequence[FinishedCell]) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Absolute errors on TEST, shape (N,), by method and seed."""
    errors: dict[str, dict[int, NDArray[np.float64]]] = {}
    for cell in cells:
        deviations = cell.predictions["EF_pred"].to_numpy() - cell.predictions["EF"].to_numpy()
        errors.setdefault(cell.method, {})[cell.seed] = np.abs(deviations)
    return errors


def long_table(cells: Sequence[FinishedCell], split: str = "test") -> pd.DataFrame:
    """Table with one number per row, on `test` or `validation`. An undefined metric is NaN."""
    rows = []
    for cell in cells:
        metrics = dict(cell.document["metrics" if split == "test" else "validation"])
        if split == "test":
            metrics["slope"], _ = regression_line(cell.predictions["EF_pred"], cell.predictions["EF"])
        for key, value in metrics.items():
            metric, category = split_key(key)
            if metric != "n":
                n = int(metrics["n" if category == "all" else f"n_{category}"])
                value = np.nan if value is None else value
                rows.append((cell.method, cell.seed, category, metric, value, n, cell.document["protocol"]))
    table = pd.DataFrame(rows, columns=list(RESULT_COLUMNS))
    places = {"method": list(dict.fromkeys(table["method"])).index, "category": list(CATEGORY_TITLES).index}
    return table.sort_values(
        ["method", "seed", "category", "metric"],
        key=lambda column: column.map(places[column.name]) if column.name in places else column,
        kind="stable",
        ignore_index=True,
    )


def split_key(key: str) -> tuple[str, str]:
    """Split a key of `ef_regression_metrics`: `mae_hfref_ci_low` is metric `mae_ci_low` of category `hfref`."""
    for category in CATEGORY_TITLES:
        for ending in (f"_{category}", f"_{category}_ci_low", f"_{category}_ci_high"):
            if key.endswith(ending):
                return key.removesuffix(ending) + ending.removeprefix(f"_{category}"), category
    return key, "all"


def cost_table(cells: Sequence[FinishedCell]) -> pd.DataFrame:
    """Parameters, steps and seconds, one row per cell. The seconds of a shared stage 1 are not included."""
    return pd.DataFrame([{"method": cell.method, "seed": cell.seed, **cell.cost} for cell in cells])


def seeds_of(cells: Sequence[FinishedCell]) -> str:
    """List the seeds, and the methods with other seeds than most: `seeds 0, 1, 2; uvt: 0`."""
    by_method: defaultdict[str, list[int]] = defaultdict(list)
    for cell in cells:
        by_method[cell.method].append(cell.seed)
    texts = {name: ", ".join(map(str, sorted(seeds))) for name, seeds in by_method.items()}
    usual = pd.Series(list(texts.values())).mode().iloc[0]
    others = [f"{name}: {text}" for name, text in texts.items() if text != usual]
    return "; ".join([f"seed{'s' if ',' in usual else ''} {usual}", *others])
