"""Tables in the shape of the paper's: mean and standard deviation over seeds, best bold, second underlined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..evaluation.report import METRIC_TITLES, MISSING_VALUE
from ..methods import get_method
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from .published import PUBLISHED_CAPTION


__all__ = ["ERROR_COLUMNS", "Table", "TableCell", "measured_table", "published_table"]

ERROR_COLUMNS: tuple[tuple[str, str], ...] = tuple(
    (metric, category) for metric in ("mae", "gm") for category in CATEGORY_TITLES
)
"""Columns of the paper's tables: metric and category."""

BALANCED_COLUMN = ("balanced_mae", "all")


@dataclass(frozen=True)
class TableCell:
    """Text of a table, with its place in its column.

    Args:
        text: Text.
        rank: 1 for the best of the column, 2 for the second; `None` for any other, and where there is no order.
    """

    text: str
    rank: int | None = None


@dataclass(frozen=True)
class Table:
    """A table before it has a format.

    Args:
        caption: What is shown.
        columns: Two lines of the header for every column.
        rows: Title and cells of every row.
        notes: Sentences below.
    """

    caption: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[TableCell]]]
    notes: Sequence[str] = field(default_factory=tuple)


def measured_table(
    results: pd.DataFrame,
    rows: Mapping[str, str],
    *,
    caption: str,
    notes: Sequence[str] = (),
    significance: pd.DataFrame | None = None,
    validation: pd.DataFrame | None = None,
) -> Table:
    """Lay measured errors out.

    Args:
        results: Table of `long_table` on TEST.
        rows: Title of every row by method, in their order; methods without results are left out.
        caption: What is shown.
        notes: Sentences below.
        significance: Table of `significance_table`, whose p-values for the MAE of all videos make the last column.
        validation: Table of `long_table` on VAL, whose MAE and balanced MAE make the first columns.

    Returns:
        The table.
    """
    names = [name for name in rows if (results["method"] == name).any()]
    columns: list[tuple[str, str]] = []
    cells: list[list[TableCell]] = []
    if validation is not None:
        for metric, category in (("mae", "all"), BALANCED_COLUMN):
            columns.append(("VAL", METRIC_TITLES[metric]))
            cells.append(ranked(summaries(validation, names, metric, category)))
    for metric, category in (*ERROR_COLUMNS, BALANCED_COLUMN):
        if (metric, category) == BALANCED_COLUMN:
            columns.append((METRIC_TITLES[metric], CATEGORY_TITLES[category]))
        else:
            columns.append((METRIC_TITLES[metric], f"{CATEGORY_TITLES[category]} (n={count(results, category)})"))
        cells.append(ranked(summaries(results, names, metric, category)))
    if significance is not None and len(significance):
        of_mae = significance[(significance["metric"] == "mae") & (significance["category"] == "all")]
        p_values = dict(zip(of_mae["method"], of_mae["p_value"], strict=True))
        columns.append(("p", "MAE, All"))
        cells.append([TableCell(format_p_value(p_values.get(name, np.nan))) for name in names])
    lines = [(rows[name], [column[place] for column in cells]) for place, name in enumerate(names)]
    return Table(caption, columns, lines, notes)


def published_table(numbers: Mapping[str, Mapping[tuple[str, str], float]], number: int) -> Table:
    """Lay published errors out.

    Args:
        numbers: Errors by method, then by metric and category.
        number: Number of the table in the paper.

    Returns:
        The table, marked as what it is.
    """
    columns = [(METRIC_TITLES[metric], CATEGORY_TITLES[category]) for metric, category in ERROR_COLUMNS]
    cells = [ranked([(values[column], np.nan) for values in numbers.values()]) for column in ERROR_COLUMNS]
    rows = [(get_method(name).title, [column[place] for column in cells]) for place, name in enumerate(numbers)]
    caption = f"{PUBLISHED_CAPTION} (Table {number} of the EchoMEN paper, MICCAI 2024); not measured here."
    return Table(caption, columns, rows)


def summaries(table: pd.DataFrame, names: Sequence[str], metric: str, category: str) -> list[tuple[float, float]]:
    """Summarise a metric over seeds.

    Args:
        table: Table of `long_table`.
        names: Methods.
        metric: Metric.
        category: Category.

    Returns:
        Mean and sample standard deviation by method; the latter is NaN for a single seed.
    """
    chosen = table[(table["metric"] == metric) & (table["category"] == category)]
    values = {name: group["value"].to_numpy(np.float64) for name, group in chosen.groupby("method")}
    empty = np.array([np.nan])
    return [
        (float(v.mean()), float(v.std(ddof=1)) if v.size > 1 else np.nan)
        for v in (values.get(name, empty) for name in names)
    ]


def ranked(values: Sequence[tuple[float, float]]) -> list[TableCell]:
    """Write a column of errors, with the order of its means.

    Args:
        values: Mean and standard deviation by row; NaN where unknown.

    Returns:
        Cells. What is printed alike is ranked alike: rows that share the first place leave no second.
    """
    means = np.array([float(f"{mean:.2f}") for mean, _ in values])
    ranks = rankdata(means, method="min", nan_policy="omit")
    cells = []
    for (mean, sd), rank in zip(values, ranks, strict=True):
        if np.isnan(mean):
            cells.append(TableCell(MISSING_VALUE))
            continue
        text = f"{mean:.2f}" if np.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"
        has_order = np.isfinite(means).sum() > 1 and rank in (1, 2)
        cells.append(TableCell(text, int(rank) if has_order else None))
    return cells


def count(results: pd.DataFrame, category: str) -> int:
    """Count the videos of a category.

    Args:
        results: Table of `long_table`.
        category: Category.

    Returns:
        Number of videos.
    """
    return int(results.loc[results["category"] == category, "n"].iloc[0])


def format_p_value(p_value: float) -> str:
    """Write a p-value as journals want it.

    Args:
        p_value: P-value; NaN if there is none.

    Returns:
        Three digits, or that it is below 0.001.
    """
    if np.isnan(p_value):
        return MISSING_VALUE
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
