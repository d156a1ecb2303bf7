"""The files of an EchoNet-Dynamic folder (FileList.csv, VolumeTracings.csv, Videos/), checked before any use."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from ...model.video_source_echomen import VIDEO_SUFFIXES


__all__ = [
    "FILE_LIST_NAME",
    "SPLIT_NAMES",
    "TRACINGS_NAME",
    "VIDEOS_FOLDER",
    "EchoNetFormatError",
    "VolumeTracing",
    "layout_fingerprint",
    "read_file_list",
    "read_volume_tracings",
]

logger = logging.get_logger(__name__)

FILE_LIST_NAME = "FileList.csv"
TRACINGS_NAME = "VolumeTracings.csv"
VIDEOS_FOLDER = "Videos"

SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Split as FileList.csv writes it, in lower case, to the name of the data set split."""

_REQUIRED = {"FileName": "file_name", "EF": "ejection_fraction", "Split": "split"}
_NUMBERS: dict[str, tuple[str, type]] = {
    "ESV": ("end_systolic_volume", float),
    "EDV": ("end_diastolic_volume", float),
    "FrameHeight": ("frame_height", int),
    "FrameWidth": ("frame_width", int),
    "NumberOfFrames": ("num_frames", int),
    "FPS": ("fps", float),
}
_KNOWN_COLUMNS = {name.lower(): name for name in (*_REQUIRED, *_NUMBERS)}
FEATURE_NAMES = {"video", *_REQUIRED.values(), *(field for field, _ in _NUMBERS.values())}
ABSENT = ("", "nan", "na", "none", "null")
_NAMES_IN_MESSAGE = 5
_LARGEST_FRACTION = 1.5
"""EF up to which a whole column is taken for fractions; no patient survives with such a percentage."""
_PLAUSIBLE_FPS = (1.0, 1000.0)
_PLAUSIBLE_VOLUMES = (1.0, 2000.0)  # ml

_HOW_TO_OBTAIN = """\
EchoNet-Dynamic cannot be downloaded automatically: it is free for research use only and may not be redistributed.
  1. Register at https://echonet.github.io/dynamic/ (Stanford AIMI), accept the research use agreement, download the
     data and unzip them.
  2. Pass the folder that holds FileList.csv and Videos/ as data_dir.
To try the software without it, make a synthetic data set of the same layout: `echomen simulate`"""


class EchoNetFormatError(ValueError):
    """A folder does not follow the layout of EchoNet-Dynamic; the message names file, line, field and remedy."""


@dataclass(frozen=True)
class VolumeTracing:
    """Left-ventricular tracings of one video, as chords.

    Args:
        end_diastolic_frame: Frame number of the larger traced area.
        end_systolic_frame: Frame number of the smaller traced area.
        end_diastolic_chords: Line segments of shape (chords, 4), each x1, y1, x2, y2 in pixels; the first is the long
            axis, the others run across it.
        end_systolic_chords: The same at end-systole.
    """

    end_diastolic_frame: int
    end_systolic_frame: int
    end_diastolic_chords: NDArray[np.float64]
    end_systolic_chords: NDArray[np.float64]


def read_file_list(data_dir: str | os.PathLike[str], *, require_tracings: bool = False) -> list[dict[str, Any]]:
    """Read FileList.csv and find each row's video.

    Lenient where real copies differ: names with or without suffix, columns in any order and case, splits in any case,
    byte-order mark, blanks around values, blank lines, further columns. Strict where data would be lost.

    Args:
        data_dir: Folder with FileList.csv and Videos/.
        require_tracings: Drop rows without an end-diastolic and an end-systolic tracing in VolumeTracings.csv.

    Returns:
        One dictionary per row, in file order: `video` (absolute path), `file_name` (without suffix), `split`
        ("train", "validation" or "test"), `ejection_fraction` (percent), `end_systolic_volume`,
        `end_diastolic_volume` (ml), `frame_height`, `frame_width` (pixels), `num_frames`, `fps`; `None` where the
        column or the value is absent. Further columns keep their names, as text.

    Raises:
        EchoNetFormatError: If the folder or a file is missing, FileList.csv is empty, lacks a column, or has a wrong
            value or a duplicate, or a video is missing.
    """
    root = Path(data_dir).expanduser().absolute()
    path = root / FILE_LIST_NAME
    if not path.is_file():
        what = f"{path} does not exist" if root.is_dir() else f"The data folder {root} does not exist"
        raise EchoNetFormatError(f"{what}.\n{_HOW_TO_OBTAIN}")
    videos = _list_videos(root)
    header, lines = _read_csv(path)
    columns = _match_columns(path, header, list(_REQUIRED))
    rows: list[dict[str, Any]] = []
    line_of: dict[str, int] = {}
    missing: list[str] = []
    for line, values in lines:
        row = _parse_row(path, line, header, columns, values)
        name = row["file_name"]
        if name in line_of:
            raise EchoNetFormatError(
                f"{path}, line {line}: FileName {name!r} already stands on line {line_of[name]}; remove one of the "
                "two, since a video in two splits would leak labels."
            )
        line_of[name] = line
        if name in videos:
            rows.append({"video": str(videos[name]), **row})
        else:
            missing.append(name)
    if not line_of:
        raise EchoNetFormatError(f"{path} has no rows below its header; copy it again from its origin.")
    if missing:
        shown = ", ".join(missing[:_NAMES_IN_MESSAGE]) + (", ..." if len(missing) > _NAMES_IN_MESSAGE else "")
        raise EchoNetFormatError(
            f"{path}: {len(missing)} of {len(line_of)} videos are missing from {root / VIDEOS_FOLDER}: {shown}; "
            "complete the folder, or remove these rows."
        )
    _check_units(path, rows)
    if require_tracings:
        traced = read_volume_tracings(root)
        rows = [row for row in rows if row["file_name"] in traced]
        if not rows:
            raise EchoNetFormatError(
                f"{root / TRACINGS_NAME} has no end-diastolic and end-systolic tracing for any video of "
                f"{FILE_LIST_NAME}; compare the FileName columns, or load without require_tracings."
            )
    return rows


def read_volume_tracings(data_dir: str | os.PathLike[str]) -> dict[str, VolumeTracing]:
    """Read VolumeTracings.csv.

    EchoNet-Dynamic traces two frames per video; the one with the larger area is end-diastolic. Of more than two, the
    largest and the smallest count; videos with fewer are left out.

    Args:
        data_dir: Folder with VolumeTracings.csv.

    Returns:
        Name of the video, without suffix, to its tracings.

    Raises:
        EchoNetFormatError: If the file is missing, lacks a column, or has a wrong value.
    """
    path = Path(data_dir).expanduser().absolute() / TRACINGS_NAME
    if not path.is_file():
        raise EchoNetFormatError(
            f"{path} does not exist; copy it beside {FILE_LIST_NAME}, or load without require_tracings."
        )
    names = ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    header, lines = _read_csv(path)
    columns = _match_columns(path, header, names)
    chords: dict[str, dict[int, list[list[float]]]] = {}
    for line, values in lines:
        fields = {name: values[columns[name]] for name in names}
        numbers = [_number(path, line, name, fields[name]) for name in names[1:]]
        frames = chords.setdefault(_stem(fields["FileName"]), {})
        frames.setdefault(int(numbers[-1]), []).append(numbers[:-1])
    return {name: _largest_and_smallest(frames) for name, frames in chords.items() if len(frames) >= 2}


def layout_fingerprint(data_dir: str | os.PathLike[str], *, require_tracings: bool = False) -> str:
    """Hash of everything that the data set is made from, to notice an edited table or a replaced video.

    Args:
        data_dir: Folder with FileList.csv and Videos/.
        require_tracings: Whether VolumeTracings.csv matters too.

    Returns:
        Hexadecimal digest of the tables' bytes and of the absolute path, size and modification time of each video.
    """
    root = Path(data_dir).expanduser().absolute()
    digest = hashlib.sha256(f"{root}\n{require_tracings}\n".encode())
    for name in (FILE_LIST_NAME, TRACINGS_NAME) if require_tracings else (FILE_LIST_NAME,):
        digest.update(hashlib.sha256((root / name).read_bytes()).digest())
    with os.scandir(root / VIDEOS_FOLDER) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat()
            digest.update(f"{entry.name}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _list_videos(root: Path) -> dict[str, Path]:
    """Name without suffix to path; of several files with one name, the first suffix in `VIDEO_SUFFIXES` wins."""
    folder = root / VIDEOS_FOLDER
    if not folder.is_dir():
        raise EchoNetFormatError(
            f"{folder} does not exist; it must hold the videos that {FILE_LIST_NAME} names.\n{_HOW_TO_OBTAIN}"
        )
    ranks = {suffix: rank for rank, suffix in enumerate(VIDEO_SUFFIXES)}
    found = [path for path in folder.iterdir() if path.suffix.lower() in ranks]
    found.sort(key=lambda path: (-ranks[path.suffix.lower()], path.name))
    return {path.stem: path for path in found}


def _stem(name: str) -> str:
    """File name without a video suffix; other dots, as in DICOM identifiers, stay."""
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_SUFFIXES else name


def _read_csv(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Header, and the line number and stripped values of each row that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EchoNetFormatError(f"{path} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8.") from error
    # With the line ends as they are: only the reader knows which of them lie inside quotes. Strict, since otherwise a
    # quote that is never closed would take all further rows for one value.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)

    def records() -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:
            raise EchoNetFormatError(
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
                raise EchoNetFormatError(
                    f"{path}, line {reader.line_num}: {len(stripped)} values for {len(header)} columns; correct the "
                    "line, and quote values that hold a comma."
                )
            yield reader.line_num, stripped[: len(header)]

    return header, rows()


def _match_columns(path: Path, header: list[str], required: list[str]) -> dict[str, int]:
    """Canonical name of each known column to its position."""
    wanted = {name.lower(): name for name in required} | _KNOWN_COLUMNS
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        canonical = wanted.get(name.lower())
        if canonical in positions or (name and header.index(name) != position):
            raise EchoNetFormatError(f"{path}: column {name!r} appears twice; remove one of the two.")
        if canonical is not None:
            positions[canonical] = position
    absent = [name for name in required if name not in positions]
    if absent:
        raise EchoNetFormatError(
            f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}. The first line must name "
            "the columns, separated by commas."
        )
    return positions


def _parse_row(path: Path, line: int, header: list[str], columns: dict[str, int], values: list[str]) -> dict[str, Any]:
    name = _stem(values[columns["FileName"]])
    if not name:
        raise EchoNetFormatError(f"{path}, line {line}: FileName is empty; name the video, or remove the row.")
    ejection_fraction = _number(path, line, "EF", values[columns["EF"]])
    if not 0 <= ejection_fraction <= 100:
        raise EchoNetFormatError(
            f"{path}, line {line}: EF must be a percentage from 0 to 100, got {ejection_fraction:g}; correct the "
            "value, or remove the row."
        )
    split = values[columns["Split"]]
    if split.lower() not in SPLIT_NAMES:
        raise EchoNetFormatError(f"{path}, line {line}: Split must be TRAIN, VAL or TEST, got {split!r}; correct it.")
    row: dict[str, Any] = {
        "file_name": name,
        "split": SPLIT_NAMES[split.lower()],
        "ejection_fraction": ejection_fraction,
    }
    for column, (field, kind) in _NUMBERS.items():
        text = values[columns[column]] if column in columns else ""
        row[field] = None if text.lower() in ABSENT else _positive(path, line, column, text, kind)
    known = set(columns.values())
    extra = {column: values[i] for i, column in enumerate(header) if column and i not in known}
    clash = sorted(FEATURE_NAMES & extra.keys())
    if clash:
        raise EchoNetFormatError(f"{path}: the column name {clash[0]!r} is reserved; rename that column.")
    return row | extra


def _number(path: Path, line: int, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EchoNetFormatError(
            f"{path}, line {line}: {field} must be a number, got {text!r}; correct the value (with a decimal point), "
            "or remove the row."
        )
    return value


def _positive(path: Path, line: int, field: str, text: str, kind: type) -> float | int:
    value = _number(path, line, field, text)
    if value <= 0 or kind(value) != value:
        rule = "positive" if value <= 0 else "a whole number"
        raise EchoNetFormatError(
            f"{path}, line {line}: {field} must be {rule}, got {text!r}; correct the value, or leave it empty."
        )
    return kind(value)


def _check_units(path: Path, rows: list[dict[str, Any]]) -> None:
    """Refuse columns of which every value is in another unit, and warn of EF that are all the same."""
    labels = [row["ejection_fraction"] for row in rows]
    if max(labels) <= _LARGEST_FRACTION and len(set(labels)) > 1:
        raise EchoNetFormatError(
            f"{path}: every EF lies between {min(labels):g} and {max(labels):g}, so the column holds fractions; "
            "multiply it by 100, since EF is in percent."
        )
    for split in dict.fromkeys(row["split"] for row in rows):
        own = [row["ejection_fraction"] for row in rows if row["split"] == split]
        if len(own) > 1 and min(own) == max(own):
            logger.warning_once(
                f"{path}: the EF of all {len(own)} videos of the {split} split is {own[0]:g}, from which nothing can "
                "be learnt; check the EF column."
            )
    rates = [row["fps"] for row in rows if row["fps"] is not None]
    if rates and (max(rates) < _PLAUSIBLE_FPS[0] or min(rates) > _PLAUSIBLE_FPS[1]):
        raise EchoNetFormatError(
            f"{path}: every FPS lies between {min(rates):g} and {max(rates):g}, which are no frames per second; "
            "convert the column (1 / seconds per frame), or remove it: the videos' headers are read then."
        )
    for column in ("ESV", "EDV"):
        volumes = [row[_NUMBERS[column][0]] for row in rows if row[_NUMBERS[column][0]] is not None]
        if volumes and (max(volumes) < _PLAUSIBLE_VOLUMES[0] or min(volumes) > _PLAUSIBLE_VOLUMES[1]):
            logger.warning_once(
                f"{path}: every {column} lies between {min(volumes):g} and {max(volumes):g}, which are no millilitres "
                "of a human heart; convert the column, or remove it."
            )


def _largest_and_smallest(frames: dict[int, list[list[float]]]) -> VolumeTracing:
    chords = {frame: np.array(rows) for frame, rows in frames.items()}  # (chords, 4)
    by_area = sorted(chords, key=lambda frame: _traced_area(chords[frame]))
    systole, diastole = by_area[0], by_area[-1]
    return VolumeTracing(diastole, systole, chords[diastole], chords[systole])


def _traced_area(chords: NDArray[np.float64]) -> float:
    """Area, in square pixels, of the polygon through the ends of the chords that cross the long axis."""
    across = chords[1:]
    x = np.concatenate([across[:, 0], across[::-1, 2]])
    y = np.concatenate([across[:, 1], across[::-1, 3]])
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
