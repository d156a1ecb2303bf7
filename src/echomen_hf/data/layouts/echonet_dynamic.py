"""EchoNet-Dynamic: FileList.csv, VolumeTracings.csv and Videos/, checked before any use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...model.video_source_echomen import VIDEO_SUFFIXES
from .layout import Layout
from .tables import (
    ABSENT,
    FEATURE_NAMES,
    SPLIT_NAMES,
    LayoutError,
    VideoRows,
    check_units,
    has_columns,
    listed,
    parse_number,
    parse_positive,
    read_csv,
    video_suffix,
    without_suffix,
)


__all__ = [
    "EchoNetFormatError",
    "ECHONET_DYNAMIC",
    "FILE_LIST_NAME",
    "TRACINGS_NAME",
    "VIDEOS_FOLDER",
    "VolumeTracing",
    "read_file_list",
    "read_volume_tracings",
]

EchoNetFormatError = LayoutError
"""Name of `LayoutError` while there was one layout."""

FILE_LIST_NAME = "FileList.csv"
TRACINGS_NAME = "VolumeTracings.csv"
VIDEOS_FOLDER = "Videos"

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

_HOW_TO_OBTAIN = """\
EchoNet-Dynamic cannot be downloaded automatically: it is free for research use only and may not be redistributed.
  1. Register at https://echonet.github.io/dynamic/ (Stanford AIMI), accept the research use agreement, download the
     data and unzip them.
  2. Pass the folder that holds FileList.csv and Videos/ as data_dir.
To try the software without it, make a synthetic data set of the same layout: `echomen simulate`"""


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
        LayoutError: If the folder or a file is missing, FileList.csv is empty, lacks a column, or has a wrong
            value or a duplicate, or a video is missing.
    """
    root = Path(data_dir).expanduser().absolute()
    path = root / FILE_LIST_NAME
    if not path.is_file():
        what = f"{path} does not exist" if root.is_dir() else f"The data folder {root} does not exist"
        raise LayoutError(f"{what}.\n{_HOW_TO_OBTAIN}")
    videos = _list_videos(root)
    header, lines = read_csv(path)
    columns = _match_columns(path, header, list(_REQUIRED))
    rows: list[dict[str, Any]] = []
    line_of: dict[str, int] = {}
    missing: list[str] = []
    for line, values in lines:
        row = _parse_row(path, line, header, columns, values)
        name = row["file_name"]
        if name in line_of:
            raise LayoutError(
                f"{path}, line {line}: FileName {name!r} already stands on line {line_of[name]}; remove one of the "
                "two, since a video in two splits would leak labels."
            )
        line_of[name] = line
        if name in videos:
            rows.append({"video": str(videos[name]), **row})
        else:
            missing.append(name)
    if not line_of:
        raise LayoutError(f"{path} has no rows below its header; copy it again from its origin.")
    if missing:
        raise LayoutError(
            f"{path}: {len(missing)} of {len(line_of)} videos are missing from {root / VIDEOS_FOLDER}: "
            f"{listed(missing)}; complete the folder, or remove these rows."
        )
    check_units(path, rows)
    if require_tracings:
        traced = read_volume_tracings(root)
        rows = [row for row in rows if row["file_name"] in traced]
        if not rows:
            raise LayoutError(
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
        LayoutError: If the file is missing, lacks a column, or has a wrong value.
    """
    path = Path(data_dir).expanduser().absolute() / TRACINGS_NAME
    if not path.is_file():
        raise LayoutError(f"{path} does not exist; copy it beside {FILE_LIST_NAME}, or load without require_tracings.")
    names = ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    header, lines = read_csv(path)
    columns = _match_columns(path, header, names)
    chords: dict[str, dict[int, list[list[float]]]] = {}
    for line, values in lines:
        fields = {name: values[columns[name]] for name in names}
        numbers = [parse_number(path, f"line {line}", name, fields[name]) for name in names[1:]]
        frames = chords.setdefault(without_suffix(fields["FileName"]), {})
        frames.setdefault(int(numbers[-1]), []).append(numbers[:-1])
    return {name: _largest_and_smallest(frames) for name, frames in chords.items() if len(frames) >= 2}


def _list_videos(root: Path) -> dict[str, Path]:
    """Name without suffix to path; of several files with one name, the first suffix in `VIDEO_SUFFIXES` wins."""
    folder = root / VIDEOS_FOLDER
    if not folder.is_dir():
        raise LayoutError(
            f"{folder} does not exist; it must hold the videos that {FILE_LIST_NAME} names.\n{_HOW_TO_OBTAIN}"
        )
    ranks = {suffix: rank for rank, suffix in enumerate(VIDEO_SUFFIXES)}
    found = [(ranks[suffix], path) for path in folder.iterdir() if (suffix := video_suffix(path.name))]
    found.sort(key=lambda entry: (-entry[0], entry[1].name))
    return {without_suffix(path.name): path for _, path in found}


def _match_columns(path: Path, header: list[str], required: list[str]) -> dict[str, int]:
    """Canonical name of each known column to its position."""
    wanted = {name.lower(): name for name in required} | _KNOWN_COLUMNS
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        canonical = wanted.get(name.lower())
        if canonical in positions or (name and header.index(name) != position):
            raise LayoutError(f"{path}: column {name!r} appears twice; remove one of the two.")
        if canonical is not None:
            positions[canonical] = position
    absent = [name for name in required if name not in positions]
    if absent:
        raise LayoutError(
            f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}. The first line must name "
            "the columns, separated by commas."
        )
    return positions


def _parse_row(path: Path, line: int, header: list[str], columns: dict[str, int], values: list[str]) -> dict[str, Any]:
    name = without_suffix(values[columns["FileName"]])
    if not name:
        raise LayoutError(f"{path}, line {line}: FileName is empty; name the video, or remove the row.")
    ejection_fraction = parse_number(path, f"line {line}", "EF", values[columns["EF"]])
    if not 0 <= ejection_fraction <= 100:
        raise LayoutError(
            f"{path}, line {line}: EF must be a percentage from 0 to 100, got {ejection_fraction:g}; correct the "
            "value, or remove the row."
        )
    split = values[columns["Split"]]
    if split.lower() not in SPLIT_NAMES:
        folds = " (numbers are folds of EchoNet-Pediatric: pass the folder of both views)" if split.isdigit() else ""
        raise LayoutError(f"{path}, line {line}: Split must be TRAIN, VAL or TEST, got {split!r}; correct it{folds}.")
    row: dict[str, Any] = {
        "file_name": name,
        "split": SPLIT_NAMES[split.lower()],
        "ejection_fraction": ejection_fraction,
    }
    for column, (field, kind) in _NUMBERS.items():
        text = values[columns[column]] if column in columns else ""
        row[field] = None if text.lower() in ABSENT else parse_positive(path, f"line {line}", column, text, kind)
    known = set(columns.values())
    extra = {column: values[i] for i, column in enumerate(header) if column and i not in known}
    clash = sorted(FEATURE_NAMES & extra.keys())
    if clash:
        raise LayoutError(f"{path}: the column name {clash[0]!r} is reserved; rename that column.")
    return row | extra


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


def _read(root: Path, *, require_tracings: bool = False) -> VideoRows:
    return VideoRows(read_file_list(root, require_tracings=require_tracings), table=root / FILE_LIST_NAME)


ECHONET_DYNAMIC = Layout(
    name="echonet_dynamic",
    title="Echocardiogram videos with ejection fraction in percent, in the layout of EchoNet-Dynamic.",
    looks_for=f"{FILE_LIST_NAME} with a column EF, and {VIDEOS_FOLDER}/",
    matches=lambda root: has_columns(root / FILE_LIST_NAME, "EF"),
    read=_read,
    homepage="https://echonet.github.io/dynamic/",
    license="Stanford University School of Medicine EchoNet-Dynamic research use agreement",
    citation="""\
@article{ouyang2020video,
  title = {Video-based {AI} for beat-to-beat assessment of cardiac function},
  author = {Ouyang, David and He, Bryan and Ghorbani, Amirata and others},
  journal = {Nature}, volume = {580}, pages = {252--256}, year = {2020}
}""",
)
