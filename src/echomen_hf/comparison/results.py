"""The finished cells of a results folder as one long table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..evaluation.report import read_metrics_json, read_predictions_csv
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from ..runs.files import read_json
from .cells import CellFolder


__all__ = [
    "RESULT_COLUMNS",
    "FinishedCell",
    "cost_table",
    "long_table",
    "read_finished_cells",
    "seeds_of",
]

RESULT_COLUMNS = ("method", "seed", "category", "metric", "value", "n", "protocol")


@dataclass(frozen=True)
class FinishedCell:
    """Results of a cell.

    Args:
        folder: Its files.
        document: Content of metrics.json.
        predictions: Predictions on TEST, see `read_predictions_csv`.
        cost: Content of cost.json.
    """

    folder: CellFolder
    document: dict[str, Any]
    predictions: pd.DataFrame
    cost: dict[str, Any]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.folder.method

    @property
    def seed(self) -> int:
        """Seed."""
        return self.folder.seed

    @property
    def title(self) -> str:
        """Name of the method in tables and figures."""
        return self.document["title"]


def read_finished_cells(results: Path, order: Sequence[str]) -> list[FinishedCell]:
    """Read every finished cell of a results folder.

    Args:
        results: Results folder.
        order: Names of methods in the order of tables; others follow, sorted.

    Returns:
        Cells by method, then by seed.

    Raises:
        ValueError: If cells were tested on different videos.
    """
    found = []
    for path in results.glob("cells/*/seed_*/metrics.json"):
        folder = CellFolder(results, path.parent.parent.name, int(path.parent.name.removeprefix("seed_")))
        predictions = read_predictions_csv(folder.predictions)
        cost = read_json(folder.cost) if folder.cost.is_file() else {}
        found.append(FinishedCell(folder, read_metrics_json(path), predictions, cost))
    place = {name: position for position, name in enumerate(order)}
    found.sort(key=lambda cell: (place.get(cell.method, len(place)), cell.method, cell.seed))
    for cell in found[1:]:
        first = found[0].predictions
        if not cell.predictions[["FileName", "EF"]].equals(first[["FileName", "EF"]]):
            raise ValueError(
                f"{cell.folder.predictions} and {found[0].folder.predictions} are about different videos; remove the "
                "cell that does not belong here."
            )
    return found


def long_table(cells: Sequence[FinishedCell], split: str = "test") -> pd.DataFrame:
    """Lay the metrics of cells out as one row per number.

    Args:
        cells: Finished cells.
        split: `test`, or `validation` for what the choice of a setting may look at.

    Returns:
        Table with the columns `RESULT_COLUMNS`. `n` is the number of videos of the category; a metric that is not
        defined, as in a category without videos, is NaN.
    """
    rows = []
    for cell in cells:
        metrics = cell.document["metrics" if split == "test" else "validation"]
        for key, value in metrics.items():
            metric, category = split_key(key)
            if metric != "n":
                n = int(metrics["n" if category == "all" else f"n_{category}"])
                value = np.nan if value is None else value
                rows.append((cell.method, cell.seed, category, metric, value, n, cell.document["protocol"]))
    table = pd.DataFrame(rows, columns=list(RESULT_COLUMNS))
    categories = list(CATEGORY_TITLES)
    order = table["category"].map(categories.index) if len(table) else table["category"]
    # Stable, so that methods and seeds stay in order.
    methods = table["method"].map({name: i for i, name in enumerate(dict.fromkeys(table["method"]))})
    keys = pd.DataFrame({"method": methods, "seed": table["seed"], "category": order, "metric": table["metric"]})
    return table.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def split_key(key: str) -> tuple[str, str]:
    """Take the name of a metric apart.

    Args:
        key: Key of `ef_regression_metrics`, such as `mae_hfref_ci_low`.

    Returns:
        Metric and category: `mae_ci_low` and `hfref`.
    """
    for category in CATEGORY_TITLES:
        for ending in (f"_{category}", f"_{category}_ci_low", f"_{category}_ci_high"):
            if key.endswith(ending):
                return key.removesuffix(ending) + ending.removeprefix(f"_{category}"), category
    return key, "all"


def cost_table(cells: Sequence[FinishedCell]) -> pd.DataFrame:
    """Lay parameters, steps and seconds of cells out.

    Args:
        cells: Finished cells.

    Returns:
        One row per cell. `stage_1_of` names the method whose stage 1 was shared, and whose seconds are not counted
        here; more than one of `training_attempts` means that seconds of a killed process may be missing.
    """
    return pd.DataFrame([{"method": cell.method, "seed": cell.seed, **cell.cost} for cell in cells])


def seeds_of(cells: Sequence[FinishedCell]) -> str:
    """List seeds, and the methods that have others than most.

    Args:
        cells: Finished cells.

    Returns:
        Text such as `seeds 0, 1, 2; uvt: 0`.
    """
    by_method: defaultdict[str, list[int]] = defaultdict(list)
    for cell in cells:
        by_method[cell.method].append(cell.seed)
    texts = {name: ", ".join(map(str, sorted(seeds))) for name, seeds in by_method.items()}
    usual = pd.Series(list(texts.values())).mode().iloc[0]
    others = [f"{name}: {text}" for name, text in texts.items() if text != usual]
    return "; ".join([f"seed{'s' if ',' in usual else ''} {usual}", *others])
