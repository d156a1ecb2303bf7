"""Division of videos into training, validation and test by patient."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers.utils import logging

from ...runs.files import hashed_name, write_text
from .tables import LayoutError, listed, read_csv


__all__ = ["SPLIT_FILE_NAME", "assign_splits", "patient_of", "require_separate_patients"]

logger = logging.get_logger(__name__)

SPLIT_FILE_NAME = "echomen_splits.csv"
"""File, beside the data, with the split of every patient."""

SPLIT_CHOICES = ("patient", "none")
_SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
_SEED = 0


def patient_of(row: dict[str, Any]) -> str:
    """Patient of a video; a video whose patient is unknown counts as one of its own."""
    return row.get("patient") or row["file_name"]


def assign_splits(rows: Sequence[dict[str, Any]], root: Path, split_by: str, split_file: str | Path | None) -> None:
    """Set the split of every row.

    Args:
        rows: Rows of a data set.
        root: Folder or table of the data set.
        split_by: `"patient"` divides at random by patient, and writes the division to a file that later calls read;
            `"none"` puts all rows into `test`.
        split_file: The file. Defaults to `SPLIT_FILE_NAME` beside the data or, if nothing can be written there, in the
            cache of `datasets`.

    Raises:
        LayoutError: If the file is no such division.
        ValueError: If there is no such choice.
    """
    if split_by not in SPLIT_CHOICES:
        raise ValueError(f"split_by must be one of {', '.join(SPLIT_CHOICES)}, got {split_by!r}.")
    if split_by == "none":
        for row in rows:
            row["split"] = "test"
        return
    path = _split_path(root) if split_file is None else Path(split_file).expanduser()
    known = _read_splits(path) if path.is_file() else {}
    # In an order that does not depend on that of the rows.
    new = sorted({patient_of(row) for row in rows} - known.keys())
    if new:
        known |= _divide(new)
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows([("patient", "split"), *sorted(known.items())])
        write_text(path, lines.getvalue())
    without = "" if any(row.get("patient") for row in rows) else ", each video counting as one, since none is named"
    logger.warning_once(f"{root}: videos are divided by patient{without}, as {path} says.")
    for row in rows:
        row["split"] = known[patient_of(row)]


def require_separate_patients(rows: Sequence[dict[str, Any]], source: Path) -> None:
    """Refuse a patient whose videos are in two splits, which would leak labels."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        if row.get("patient"):
            splits.setdefault(row["patient"], set()).add(row["split"])
    if several := sorted(hashed_name(patient) for patient, found in splits.items() if len(found) > 1):
        raise LayoutError(
            f"{source}: {len(several)} of {len(splits)} patients have videos in more than one split, which would leak "
            f"labels: {listed(several)} (the first 16 digits of the SHA-256 of their names). Keep each in one split, "
            "or divide anew with split_by='patient'."
        )


def _split_path(root: Path) -> Path:
    folder = root if root.is_dir() else root.parent
    beside = folder / SPLIT_FILE_NAME
    if beside.is_file() or os.access(folder, os.W_OK):
        return beside
    return Path(datasets.config.HF_DATASETS_CACHE) / "echomen_hf" / hashed_name(str(folder)) / SPLIT_FILE_NAME


def _read_splits(path: Path) -> dict[str, str]:
    header, lines = read_csv(path)
    entries = [values for _, values in lines]
    if header != ["patient", "split"] or any(split not in _SHARES for _, split in entries):
        raise LayoutError(
            f"{path} is no division of patients: it needs the columns patient and split, with {', '.join(_SHARES)}; "
            "remove it to divide anew."
        )
    return dict(entries)


def _divide(patients: list[str]) -> dict[str, str]:
    """Draw the split of every patient; of three patients or more, every split has one."""
    order = np.random.default_rng(_SEED).permutation(len(patients))
    small = [max(round(share * len(patients)), 1) for share in (_SHARES["validation"], _SHARES["test"])]
    names = ["validation"] * small[0] + ["test"] * small[1] + ["train"] * len(patients)
    if len(patients) < 3:
        names = ["train"] * len(patients)
    return {patients[position]: name for position, name in zip(order.tolist(), names)}
