"""One report on the errors of a model on several data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..labels import CATEGORY_TITLES, category_masks
from ..runs.files import folder_or_id, write_json, write_text
from ..runs.training_list import SeenVideos
from .group_errors import MIN_VIDEOS, ColumnErrors, errors_by_column
from .report import MISSING_VALUE, confidence_interval, markdown_table, with_interval
from .split_evaluation import SplitEvaluation, find_split, patients_of


__all__ = ["TestSet", "external_report", "write_external_report"]

REPORT_FILE = "report.md"
REPORT_TABLE = "report.json"

SUBGROUPS = {"sex": "Sex", "age": "Age", "view": "View", "quality": "Image quality"}
"""Columns by which errors are shown, in any case, and their titles."""

_AGE_ENDS = (18, 45, 65, 80)
_MOST_LISTED = 20


@dataclass(frozen=True)
class TestSet:
    """A data set on which a model was evaluated.

    Args:
        name: Name in the report.
        evaluation: Its evaluation.
        videos: Rows of the split that was evaluated.
        layout: Name of its layout.
        left_out: Videos of the whole data set that were left out, and why.
        seen: Videos that went into the training of the model; `None` if that is not known.
        synthetic: Whether the data are simulated.
    """

    __test__ = False  # pytest would take it for a test

    name: str
    evaluation: SplitEvaluation
    videos: Any
    layout: str
    left_out: Sequence[str]
    seen: SeenVideos | None
    synthetic: bool

    @classmethod
    def of(cls, name: str, evaluation: SplitEvaluation, splits: Any, **facts: Any) -> TestSet:
        """Take the rows that were evaluated out of all splits of a data set."""
        return cls(name, evaluation, splits[find_split(splits, evaluation.settings["split"])], **facts)

    @property
    def patients(self) -> list[str] | None:
        """Patient of every video; `None` if not known."""
        return patients_of(self.videos)

    @cached_property
    def subgroups(self) -> list[ColumnErrors]:
        """Errors by sex, age, view and image quality, as far as the data set has them."""
        columns = {name.lower(): name for name in self.videos.column_names}
        known = {title: columns[name] for name, title in SUBGROUPS.items() if name in columns}
        rows = []
        for row in self.videos:
            values = {title: str(row[column] or "") for title, column in known.items()}
            if "Age" in values:
                values["Age"] = age_band(values["Age"])
            rows.append({"file_name": row["file_name"], **values})
        if self.patients is not None:
            rows = [{**row, "patient": patient} for row, patient in zip(rows, self.patients)]
        settings = self.evaluation.settings
        predictions = pd.DataFrame(
            {
                "FileName": [prediction.file_name for prediction in self.evaluation.predictions],
                "EF": self.evaluation.references,
                "EF_pred": [prediction.ejection_fraction for prediction in self.evaluation.predictions],
            }
        )
        options = {"bootstrap_samples": settings["bootstrap_samples"], "seed": settings["seed"]}
        if settings["confidence_level"] is not None:
            options["confidence_level"] = settings["confidence_level"]
        return errors_by_column(predictions, rows, **options)


def age_band(text: str) -> str:
    """Band of an age in years; empty if it is no number."""
    try:
        age = float(text)
    except ValueError:
        return ""
    if not age >= 0:
        return ""
    lower = [0, *_AGE_ENDS]
    position = int(np.searchsorted(_AGE_ENDS, age, side="right"))
    return f"{lower[position]} to {_AGE_ENDS[position] - 1}" if position < len(_AGE_ENDS) else f"{lower[-1]} or older"


def external_report(sets: Sequence[TestSet], model: str | Path) -> str:
    """Format the errors of a model on data sets as Markdown.

    Args:
        sets: Data sets with their evaluations.
        model: Folder or Hub id of the model.

    Returns:
        A table with a row per data set and heart-failure category, tables by subgroup, and what to know of the data.
    """
    settings = sets[0].evaluation.settings
    level = settings["confidence_level"]
    interval = f" ({level:.0%} interval)" if level is not None else ""
    warnings = [warning for each in sets if (warning := seen_warning(each))]
    if any(each.synthetic for each in sets):
        warnings.insert(0, "Some of these data are **SYNTHETIC**: results on them say nothing of patients.")
    tables = [subgroup_table(sets, title, interval) for title in SUBGROUPS.values()]
    sections = [
        f"# Evaluation of {folder_or_id(model)}",
        *warnings,
        f"Clips per video: protocol {settings['protocol']}. EF and errors are in percentage points."
        + (f" {resampling_note(sets)}" if level is not None else ""),
        "## Errors by data set and category",
        category_table(sets, interval),
        "## Errors by subgroup",
        *([table for table in tables if table] or ["No data set tells sex, age, view or image quality in groups."]),
        "## Data sets",
        "\n".join(f"- {data_note(each)}" for each in sets),
    ]
    return "\n\n".join(sections) + "\n"


def category_table(sets: Sequence[TestSet], interval: str) -> str:
    """One row per data set and heart-failure category."""
    coverages = {each.evaluation.intervals["nominal_coverage"] for each in sets if each.evaluation.intervals}
    nominal = f" (nominal {next(iter(coverages)):.0%})" if len(coverages) == 1 else ""
    header = ["Data set", "Category", "Videos", "Patients", f"MAE{interval}", "GM", f"Bias{interval}"]
    rows = []
    for each in sets:
        metrics, patients = each.evaluation.metrics, each.patients
        measured = (each.evaluation.intervals or {}).get("measured", {})
        for category, title in CATEGORY_TITLES.items():
            suffix = "" if category == "all" else f"_{category}"
            known = MISSING_VALUE if patients is None else str(len(patients_in(each, category)))
            found = measured.get(category)
            rows.append(
                [
                    each.name,
                    title,
                    str(metrics[f"n{suffix}"]),
                    known,
                    error_cell(metrics, f"mae{suffix}"),
                    with_interval(metrics, f"gm{suffix}", interval=False),
                    error_cell(metrics, f"bias{suffix}"),
                    MISSING_VALUE if found is None else f"{found['coverage']:.0%}",
                    MISSING_VALUE if found is None else f"{found['width']:.1f}",
                ]
            )
    return markdown_table([*header, f"Coverage{nominal}", "Mean width"], rows)


def patients_in(each: TestSet, category: str) -> set[str]:
    """Patients with a video in a heart-failure category."""
    mask = category_masks(each.evaluation.references)[category]
    return {patient for patient, inside in zip(each.patients or [], mask) if inside}


def subgroup_table(sets: Sequence[TestSet], title: str, interval: str) -> str:
    """Errors by the groups of one column, or nothing if no data set has groups."""
    rows = []
    for each in sets:
        for column in each.subgroups:
            if column.column != title:
                continue
            for group, metrics in column.groups.items():
                shown = "mae" in metrics
                cells = [error_cell(metrics, name) if shown else MISSING_VALUE for name in ("mae", "bias")]
                rows.append([each.name, group, str(metrics["n"]), *cells])
    if not rows:
        return ""
    few = (
        f"\n\nGroups of fewer than {MIN_VIDEOS} videos are counted only."
        if any(r[3] == MISSING_VALUE for r in rows)
        else ""
    )
    return markdown_table(["Data set", title, "Videos", f"MAE{interval}", f"Bias{interval}"], rows) + few


def error_cell(metrics: Any, key: str) -> str:
    """Format an error with its interval, which one patient, who has no spread, does not have."""
    low, high = confidence_interval(metrics, key)
    return with_interval(metrics, key, interval=low < high)


def resampling_note(sets: Sequence[TestSet]) -> str:
    """Sentence on what the intervals were resampled over."""
    by_patient = [each.name for each in sets if each.patients is not None]
    others = [each.name for each in sets if each.patients is None]
    if not by_patient:
        return "Intervals resample videos, since no data set tells the patients."
    rest = f", and videos of {', '.join(others)}, where patients are not known" if others else ""
    return f"Intervals resample patients with all their clips, which are not independent{rest}."


def seen_warning(each: TestSet) -> str:
    """Sentence on videos that went into the training, or nothing."""
    if each.seen is None or not each.seen.videos:
        return ""
    patients = f" ({each.seen.patients} patients)" if each.seen.patients else ""
    return (
        f"**Seen in training**: {each.seen.videos} of the {len(each.videos)} videos of {each.name}{patients}, or "
        "others of the same patients, went into the training of this model, so its errors there are no test."
    )


def data_note(each: TestSet) -> str:
    """What to know of a data set, in a line."""
    parts = [f"{len(each.videos)} videos of the split {each.evaluation.settings['split']}, layout {each.layout}"]
    if each.synthetic:
        parts.append("SYNTHETIC")
    if each.seen is None:
        parts.append("not known whether the model was trained on them")
    elif not each.seen.videos:
        parts.append("none of them in the training of this model")
    if each.left_out:
        listed = ", ".join(each.left_out[:_MOST_LISTED]) + (", ..." if len(each.left_out) > _MOST_LISTED else "")
        parts.append(f"left out of the data set ({len(each.left_out)}): {listed}")
    return f"**{each.name}**: {'; '.join(parts)}."


def write_external_report(sets: Sequence[TestSet], output: Path, model: str | Path) -> str:
    """Write report.md, and its numbers as report.json, and return the former."""
    report = external_report(sets, model)
    write_text(output / REPORT_FILE, report)
    document = {
        each.name: {
            "bootstrap_unit": "video" if each.patients is None else "patient",
            "layout": each.layout,
            "left_out": list(each.left_out),
            "metrics": each.evaluation.metrics,
            "prediction_intervals": each.evaluation.intervals,
            "seen_in_training": None
            if each.seen is None
            else {"videos": each.seen.videos, "patients": each.seen.patients},
            "split": each.evaluation.settings["split"],
            "subgroups": {column.column: column.groups for column in each.subgroups},
            "synthetic_data": each.synthetic,
        }
        for each in sets
    }
    write_json(output / REPORT_TABLE, {"model": folder_or_id(model), "data_sets": document})
    return report
