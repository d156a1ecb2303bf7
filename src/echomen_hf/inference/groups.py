"""One ejection fraction per patient or study, from those of its videos."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..labels import CATEGORY_TITLES
from ..model.heart_failure_category_echomen import heart_failure_category
from ..runs.files import escape_formula
from .archive_files import ArchiveFile, Place, require_table


__all__ = ["GroupPrediction", "combine_videos", "find_groups", "video_variances", "write_groups"]

FOLDER = "folder"
"""Groups files by their folder."""

SMALLEST_SD = 1.0
"""Error in EF points that a video without an interval has at least, however well its clips agree."""

_RUN_COLUMNS = ("model", "protocol", "precision", "weights")
_COLUMNS = ("EF_pred", "category", "video_sd", "lowest", "highest", "videos", "failed", *_RUN_COLUMNS)

Combine = Literal["variance", "median"]


@dataclass(frozen=True)
class GroupPrediction:
    """Ejection fraction of a patient or study, and how far its videos disagree; all in percent.

    Args:
        group: Its name.
        ejection_fraction: EF.
        video_sd: Standard deviation of the videos' EF; 0 for a single video.
        lowest: Lowest EF of a video.
        highest: Highest EF of a video.
        num_videos: Number of videos.
    """

    group: str
    ejection_fraction: float
    video_sd: float
    lowest: float
    highest: float
    num_videos: int

    @property
    def category(self) -> str:
        """Heart-failure category of the prediction."""
        return heart_failure_category(self.ejection_fraction)


def video_variances(clip_sds: ArrayLike, intervals: Sequence[tuple[float, float] | None] | None = None) -> np.ndarray:
    """Estimate how uncertain the ejection fractions of the videos of one group are, in squared EF points, shape (N,).

    The variance is that of a video's clips plus the square of half its prediction interval. If a video of the group
    has no interval, one EF point takes the place of that half for all of them.

    Args:
        clip_sds: Standard deviation of the EF of every video's clips, shape (N,).
        intervals: Prediction interval of every video. Defaults to none.
    """
    sds = np.full(np.shape(clip_sds), SMALLEST_SD)
    if intervals is not None and None not in intervals:
        low, high = np.array(intervals, dtype=np.float64).reshape(-1, 2).T
        sds = np.maximum((high - low) / 2, SMALLEST_SD)
    return np.asarray(clip_sds, dtype=np.float64) ** 2 + sds**2


def combine_videos(
    group: str, ejection_fractions: ArrayLike, variances: ArrayLike | None = None, combine: Combine = "variance"
) -> GroupPrediction:
    """Combine the ejection fractions of the videos of one patient or study.

    Args:
        group: Name of the patient or study.
        ejection_fractions: EF of every video in percent, shape (N,).
        variances: Variance of every EF, shape (N,), see `video_variances`. Defaults to the same for all.
        combine: `variance` is the mean with weights 1 / variance, `median` the median, which a single odd video does
            not move.

    Returns:
        The prediction.

    Raises:
        ValueError: If there are no videos, or the way to combine them is unknown.
    """
    values = np.asarray(ejection_fractions, dtype=np.float64)
    if values.size == 0:
        raise ValueError(f"{group} has no video with an ejection fraction.")
    if combine not in ("variance", "median"):
        raise ValueError(f"Videos are combined by `variance` or `median`, not {combine!r}.")
    if combine == "median":
        estimate = np.median(values)
    else:
        weights = 1 / np.broadcast_to(np.asarray(1.0 if variances is None else variances, np.float64), values.shape)
        estimate = weights @ values / weights.sum()
    return GroupPrediction(group, float(estimate), float(values.std()), *_range(values), len(values))


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def find_groups(files: Sequence[ArchiveFile], group_by: str) -> dict[str, str]:
    """Find the group of every file, by its name.

    Args:
        files: Files, from `list_files` or `read_manifest`.
        group_by: Column of the manifest, or `folder` for the folder in which a file lies.

    Raises:
        ValueError: If there is no such column, if a file has no group, or if two folders would have the same name.
    """
    if group_by in _COLUMNS:
        raise ValueError(f"The table of groups has a column {group_by!r} of its own; rename that of the manifest.")
    if all(group_by in file.columns for file in files):
        groups = {file.name: file.columns[group_by].strip() for file in files}
        if empty := [name for name, group in groups.items() if not group]:
            raise ValueError(
                f"{len(empty)} files of the manifest have no {group_by}, such as {empty[0]}; fill the column."
            )
        return groups
    if group_by != FOLDER:
        known = ", ".join([*(files[0].columns if files else {}), FOLDER])
        raise ValueError(f"Files cannot be grouped by {group_by!r}; there is {known}.")
    groups = {file.name: str(PurePosixPath(file.name).parent) for file in files}
    places = {(groups[file.name], _folder_of(file)) for file in files}
    if repeated := [group for group, count in Counter(group for group, _ in places).items() if count > 1]:
        raise ValueError(
            f"Several folders would be called {repeated[0]!r}. Give the folder above them, or use `--absolute_paths`, "
            "which tells them apart."
        )
    return groups


def _folder_of(file: ArchiveFile) -> str:
    if isinstance(file.source, Path):
        return str(file.source.absolute().parent)
    return str(PurePosixPath(file.source.place.path).parent)


def require_groups(output: str | Path, group_by: str) -> None:
    """Refuse to replace a file beside a table that is not its table of groups."""
    require_table(group_table(output, group_by), [group_by, *_COLUMNS])


def write_groups(
    rows: Sequence[dict[str, str]],
    groups: dict[str, str],
    group_by: str,
    output: str | Path | None = None,
    combine: Combine = "variance",
) -> list[GroupPrediction]:
    """Combine the rows of `predict_archive`, and write a second table beside theirs.

    A group has a row without an ejection fraction if none of its files has one, unreadable or unusable as they are.

    Args:
        rows: Rows of all files.
        groups: Group of every file, from `find_groups`.
        group_by: What the files are grouped by: name of the first column, and part of the table's name.
        output: Table of the rows, or its URL: `o.csv` gets `o_by_patient.csv` beside it, and a Parquet file another
            one. Defaults to no table.
        combine: See `combine_videos`.

    Returns:
        Predictions of the groups, in the order of their first files.
    """
    members: dict[str, list[dict[str, str]]] = {group: [] for group in groups.values()}
    for row in rows:
        members[groups[row["file"]]].append(row)
    predictions, lines = [], []
    for group, own in members.items():
        read = [row for row in own if row["EF_pred"]]
        cells = dict.fromkeys(_COLUMNS, "") | {"videos": str(len(read)), "failed": str(len(own) - len(read))}
        cells |= {name: own[0][name] for name in _RUN_COLUMNS}
        if read:
            prediction = _combine_rows(group, read, combine)
            predictions.append(prediction)
            cells |= {
                "EF_pred": f"{prediction.ejection_fraction:.2f}",
                "category": CATEGORY_TITLES[prediction.category],
                "video_sd": f"{prediction.video_sd:.2f}",
                "lowest": f"{prediction.lowest:.2f}",
                "highest": f"{prediction.highest:.2f}",
            }
        lines.append([group, *cells.values()])
    if output is not None:
        place = group_table(output, group_by)
        place.write(_encode([group_by, *_COLUMNS], lines, parquet=place.name.endswith(".parquet")))
    return predictions


def group_table(output: str | Path, group_by: str) -> Place:
    """Where the table of groups belongs: beside that of the files."""
    place = Place(output)
    name = PurePosixPath(place.name)
    suffix = ".parquet" if name.suffix.lower() == ".parquet" else ".csv"
    what = re.sub(r"[^\w-]", "_", group_by)
    return place.beside(f"{name.stem}_by_{what}{suffix}")


def _combine_rows(group: str, rows: list[dict[str, str]], combine: Combine) -> GroupPrediction:
    intervals = [
        (float(row["interval_low"]), float(row["interval_high"])) if row["interval_low"] else None for row in rows
    ]
    variances = video_variances([float(row["clip_sd"]) for row in rows], intervals)
    return combine_videos(group, [float(row["EF_pred"]) for row in rows], variances, combine)


def _encode(header: list[str], lines: list[list[str]], parquet: bool) -> bytes:
    if not parquet:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([escape_formula(cell) for cell in line] for line in [header, *lines])
        return text.getvalue().encode()
    import pandas as pd

    table = pd.DataFrame(lines, columns=header, dtype="string")
    for name in ("EF_pred", "video_sd", "lowest", "highest"):
        table[name] = [float(cell or "nan") for cell in table[name]]
    return table.astype({"videos": "int64", "failed": "int64"}).to_parquet(index=False)
