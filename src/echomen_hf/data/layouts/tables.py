"""Tables of data sets, and the rows that the layouts make of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...model.video_source_echomen import VIDEO_SUFFIXES


__all__ = [
    "ABSENT",
    "FEATURE_NAMES",
    "NUMBERS",
    "SPLIT_NAMES",
    "LayoutError",
    "RowCollector",
    "VideoRows",
    "check_ejection_fractions",
    "check_units",
    "has_columns",
    "listed",
    "parse_number",
    "parse_positive",
    "read_csv",
    "video_suffix",
    "without_suffix",
]

logger = logging.get_logger(__name__)

SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Split as tables write it, in lower case, to the name of the data set split."""

NUMBERS: dict[str, type] = {
    "end_systolic_volume": float,
    "end_diastolic_volume": float,
    "frame_height": int,
    "frame_width": int,
    "num_frames": int,
    "fps": float,
}
"""Columns of numbers that a row may leave open, and their types."""

FEATURE_NAMES = {"video", "file_name", "ejection_fraction", "split", *NUMBERS}
ABSENT = ("", "nan", "na", "none", "null")
_NAMES_IN_MESSAGE = 5
_LARGEST_FRACTION = 1.5
"""EF up to which a whole column is taken for fractions; no patient survives with such a percentage."""
_PLAUSIBLE_FPS = (1.0, 1000.0)
_PLAUSIBLE_VOLUMES = (1.0, 2000.0)  # ml


class LayoutError(ValueError):
    """A data set does not follow its layout; the message names file, line, field and remedy."""


@dataclass
class VideoRows:
    """Rows of a data set.

    Args:
        rows: One dictionary per video: `video` (absolute path), `file_name`, `split` (`None` if nothing states it),
            `ejection_fraction` (percent) and `NUMBERS`, `None` where unknown; further entries are text.
        left_out: Videos that are not among them, and why, one text each.
        table: The one table that everything comes from, if there is one.
    """

    rows: list[dict[str, Any]]
    left_out: list[str] = field(default_factory=list)
    table: Path | None = None


class RowCollector:
    """Collects the rows of a layout with all that is wrong with them, so that one error can tell everything.

    Args:
        source: File or folder that messages name.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.problems: list[str] = []
        self._missing: list[str] = []
        self._places: dict[str, str] = {}

    def add(
        self,
        place: str,
        name: str,
        video: Path,
        ejection_fraction: str,
        split: str | None = None,
        numbers: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Add a video; one without a usable EF is left out, and one without its file is a problem.

        Args:
            place: What messages call the row, such as its line.
            name: Name of the video, which no other may have.
            video: Path of the video.
            ejection_fraction: EF in percent, as written.
            split: Split, or `None`.
            numbers: Values of `NUMBERS`, as written.
            texts: Further columns.
        """
        if name in self._places:
            self.problems.append(f"{place}: {name!r} already stands in {self._places[name]}; remove one of the two")
            return
        self._places[name] = place
        if reason := _unusable(ejection_fraction):
            self.left_out.append(f"{name} ({reason})")
            return
        if not video.is_file():
            self._missing.append(name)
            return
        row: dict[str, Any] = {
            "video": str(video),
            "file_name": name,
            "split": split,
            "ejection_fraction": float(ejection_fraction),
        }
        for field_name, kind in NUMBERS.items():
            text = (numbers or {}).get(field_name, "")
            try:
                row[field_name] = (
                    None if text.lower() in ABSENT else parse_positive(self.source, place, field_name, text, kind)
                )
            except LayoutError as error:
                self.problems.append(str(error).removeprefix(f"{self.source}, ").rstrip("."))
                row[field_name] = None
        clash = sorted(FEATURE_NAMES & (texts or {}).keys())
        if clash:
            raise LayoutError(f"{self.source}: the column name {clash[0]!r} is reserved; rename that column.")
        self.rows.append(row | dict(texts or {}))

    def finish(self, table: Path | None = None) -> VideoRows:
        """Return the rows, or raise one `LayoutError` that lists what is wrong."""
        problems = list(self.problems)
        if self._missing:
            problems.append(
                f"{len(self._missing)} of {len(self._places)} videos are missing: {listed(self._missing)}; complete "
                "the folder, or remove their rows"
            )
        if problems:
            raise LayoutError(f"{self.source}: " + "\n".join(problems) + ".")
        if not self.rows:
            left = f"; left out: {listed(self.left_out)}" if self.left_out else ""
            raise LayoutError(f"{self.source} names no video with a usable EF{left}.")
        check_units(self.source, self.rows)
        return VideoRows(self.rows, self.left_out, table)


def _unusable(text: str) -> str:
    """Why an EF cannot be used; empty if it can."""
    if text.strip().lower() in ABSENT:
        return "no EF"
    try:
        value = float(text)
    except ValueError:
        return f"EF {text!r} is no number"
    return "" if 0 <= value <= 100 else f"EF {value:g} is outside 0 to 100"


def listed(names: list[str], most: int = _NAMES_IN_MESSAGE) -> str:
    """List names, and three dots for those after the first few."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def video_suffix(name: str) -> str:
    """Ending of a file name, in lower case, if it is one of `VIDEO_SUFFIXES`; else empty."""
    return max((suffix for suffix in VIDEO_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")


def without_suffix(name: str) -> str:
    """File name without the ending of a video; other dots, as in DICOM identifiers, stay."""
    return name[: len(name) - len(video_suffix(name))]


def read_csv(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header, and the line number and stripped values of each row that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8.") from error
    # With the line ends as they are: only the reader knows which of them lie inside quotes. Strict, since otherwise a
    # quote that is never closed would take all further rows for one value.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)

    def records() -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:
            raise LayoutError(
                f"{path}, line {reader.line_num}: {error}; close every quotation mark, and double it inside a value."
            ) from error

    lines = records()
    header = [name.strip() for name in next(lines, [])]

    def rows() -> Iterator[tuple[int, list[str]]]:
        for values in lines:
            stripped = [value.strip() for value in values]
            if not any(stripped):
                continue
            if len(stripped) < len(header) or any(stripped[len(header) :]):
                raise LayoutError(
                    f"{path}, line {reader.line_num}: {len(stripped)} values for {len(header)} columns; correct the "
                    "line, and quote values that hold a comma."
                )
            yield reader.line_num, stripped[: len(header)]

    return header, rows()


def has_columns(path: Path, *names: str) -> bool:
    """Whether a file is a CSV with columns of these names, in any case."""
    try:
        header, _ = read_csv(path)
    except (OSError, LayoutError):
        return False
    return {name.lower() for name in names} <= {name.lower() for name in header}


def parse_number(path: Path, place: str, field: str, text: str) -> float:
    """Parse a finite number, or raise an error that names where it stands."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LayoutError(
            f"{path}, {place}: {field} must be a number, got {text!r}; correct the value (with a decimal point), or "
            "remove the row."
        )
    return value


def parse_positive(path: Path, place: str, field: str, text: str, kind: type) -> float | int:
    """Parse a positive number of a type, or raise an error that names where it stands."""
    value = parse_number(path, place, field, text)
    if value <= 0 or kind(value) != value:
        rule = "positive" if value <= 0 else "a whole number"
        raise LayoutError(
            f"{path}, {place}: {field} must be {rule}, got {text!r}; correct the value, or leave it empty."
        )
    return kind(value)


def check_ejection_fractions(source: str | Path, rows: list[dict[str, Any]]) -> None:
    """Refuse EF that are all fractions, and warn of EF that are all the same."""
    labels = [row["ejection_fraction"] for row in rows]
    if max(labels) <= _LARGEST_FRACTION and len(set(labels)) > 1:
        raise LayoutError(
            f"{source}: every EF lies between {min(labels):g} and {max(labels):g}, so the column holds fractions; "
            "multiply it by 100, since EF is in percent."
        )
    for split in dict.fromkeys(row["split"] for row in rows):
        own = [row["ejection_fraction"] for row in rows if row["split"] == split]
        if len(own) > 1 and min(own) == max(own):
            of_split = f" of the {split} split" if split else ""
            logger.warning_once(
                f"{source}: the EF of all {len(own)} videos{of_split} is {own[0]:g}, from which nothing can be "
                "learnt; check the EF column."
            )


def check_units(source: Path, rows: list[dict[str, Any]]) -> None:
    """Refuse columns of which every value is in another unit, and warn of EF that are all the same."""
    check_ejection_fractions(source, rows)
    rates = [row["fps"] for row in rows if row["fps"] is not None]
    if rates and (max(rates) < _PLAUSIBLE_FPS[0] or min(rates) > _PLAUSIBLE_FPS[1]):
        raise LayoutError(
            f"{source}: every FPS lies between {min(rates):g} and {max(rates):g}, which are no frames per second; "
            "convert the column (1 / seconds per frame), or remove it: the videos' headers are read then."
        )
    for column, name in (("ESV", "end_systolic_volume"), ("EDV", "end_diastolic_volume")):
        volumes = [row[name] for row in rows if row[name] is not None]
        if volumes and (max(volumes) < _PLAUSIBLE_VOLUMES[0] or min(volumes) > _PLAUSIBLE_VOLUMES[1]):
            logger.warning_once(
                f"{source}: every {column} lies between {min(volumes):g} and {max(volumes):g}, which are no "
                "millilitres of a human heart; convert the column, or remove it."
            )
