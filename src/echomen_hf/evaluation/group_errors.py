"""Errors by further columns of a data set, such as age or sex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.layouts.tables import ABSENT, FEATURE_NAMES
from ..metrics import ef_regression_metrics


__all__ = ["ColumnErrors", "errors_by_column"]

MAX_GROUPS = 10
"""Most groups of a column; numbers with more values are cut at their quantiles, other columns are left out."""

MIN_VIDEOS = 10
"""Fewest videos of a group whose errors are shown: fewer say little, and could point at a patient."""


@dataclass(frozen=True)
class ColumnErrors:
    """Metrics by group of one column; only `n` for groups of fewer than `MIN_VIDEOS` videos."""

    column: str
    groups: dict[str, dict[str, float]]
    omitted: str = ""


def errors_by_column(
    predictions: pd.DataFrame,
    videos: Sequence[dict[str, Any]],
    *,
    bootstrap_samples: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> list[ColumnErrors]:
    """Measure errors by every further column of a data set, in its order, but never by patient.

    Predictions come from `read_predictions_csv`, rows from `read_data_set`; `bootstrap_samples=0` omits intervals,
    which are by patient where the rows tell it.
    """
    columns = [name for name in (videos[0] if videos else {}) if name not in {*FEATURE_NAMES, "patient"}]
    known = predictions[predictions["EF"].notna()]
    value_of = {row["file_name"]: row for row in videos}
    rows = [value_of.get(name, {}) for name in known["FileName"]]
    patients = np.array([row.get("patient") or name for row, name in zip(rows, known["FileName"])])
    results = []
    for column in columns:
        values = [str(row.get(column, "")) for row in rows]
        labels = ["unknown" if value.lower() in ABSENT else value for value in values]
        labels, omitted = group_labels(labels)
        groups: dict[str, dict[str, float]] = {}
        for group in dict.fromkeys(sorted(labels, key=group_order)) if not omitted else ():
            is_member = np.array(labels) == group
            chosen = known[is_member]
            groups[group] = {"n": len(chosen)}
            if len(chosen) >= MIN_VIDEOS:
                groups[group] = ef_regression_metrics(
                    chosen["EF_pred"],
                    chosen["EF"],
                    bootstrap_samples=bootstrap_samples,
                    confidence_level=confidence_level,
                    seed=seed,
                    patients=patients[is_member] if any(row.get("patient") for row in rows) else None,
                )
        results.append(ColumnErrors(column, groups, omitted))
    return results


def group_labels(labels: list[str]) -> tuple[list[str], str]:
    """Group of every video, and why the column cannot be used (empty if it can)."""
    values = set(labels) - {"unknown"}
    if len(values) < 2:
        return labels, "it has fewer than two different values"
    if len(values) <= MAX_GROUPS:
        return labels, ""
    numbers = pd.to_numeric(pd.Series(labels).where(lambda label: label != "unknown"), errors="coerce")
    known = int(numbers.notna().sum())
    if known != len(labels) - labels.count("unknown"):
        return labels, f"it has {len(values)} different values"
    # Quartiles, or fewer parts where these would be too small to be shown.
    part = pd.qcut(numbers, min(4, max(2, known // MIN_VIDEOS)), labels=False, duplicates="drop")
    groups = labels.copy()
    for number in sorted(part.dropna().unique()):
        inside = numbers[part == number]
        name = f"{inside.min():g} to {inside.max():g}"
        groups = [name if chosen else group for group, chosen in zip(groups, part == number)]
    return groups, ""


def group_order(label: str) -> tuple[bool, float, str]:
    """Sort key: numbers and ranges by size, then names, then unknown values."""
    try:
        number = float(label.split(" to ")[0])
    except ValueError:
        number = np.inf
    return label == "unknown", number, label
