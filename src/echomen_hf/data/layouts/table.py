"""Any table of videos: a CSV or Parquet file with a column of paths and one of ejection fractions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from transformers.utils import logging

from .layout import Layout
from .splits import SPLIT_FILE_NAME
from .tables import SPLIT_NAMES, LayoutError, RowCollector, VideoRows, listed, read_csv, without_suffix


__all__ = ["TABLE", "parse_columns"]

logger = logging.get_logger(__name__)

# What a column may be called whose name is not given, in lower case.
_GUESSES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_name", "filename", "file_path", "filepath", "video", "video_path", "dicom_path"),
    "ejection_fraction": ("ejection_fraction", "ef", "lvef", "lvef_a4c", "lvef_bp", "ef_percent"),
    "split": ("split", "subset", "partition"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
    "fps": ("fps", "frame_rate", "framerate"),
    "end_systolic_volume": ("end_systolic_volume", "esv", "lvesv"),
    "end_diastolic_volume": ("end_diastolic_volume", "edv", "lvedv"),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "view": ("view",),
    "quality": ("quality", "image_quality", "imagequality"),
}
_NEEDED = ("path", "ejection_fraction")
_NUMBERS = ("fps", "end_systolic_volume", "end_diastolic_volume")
_TEXTS = ("patient", "sex", "age", "view", "quality")
_SPLITS = {**SPLIT_NAMES, "training": "train", "valid": "validation", "dev": "validation", "testing": "test"}
_SUFFIXES = (".csv", ".parquet")


def parse_columns(columns: Mapping[str, str] | str | None) -> dict[str, str]:
    """Read which columns mean what.

    Args:
        columns: Meaning to name of the column, as a mapping or as JSON, or text such as `path=file,split=set`.

    Raises:
        ValueError: If a meaning is unknown.
    """
    pairs: Mapping[str, str] = {}
    try:
        if not isinstance(columns, str):
            pairs = columns or {}
        elif columns.lstrip().startswith("{"):
            pairs = json.loads(columns)
        else:
            pairs = dict(pair.split("=", 1) for pair in columns.split(","))
    except ValueError as error:
        raise ValueError(f"columns must read like path=file,ejection_fraction=LVEF, got {columns!r}.") from error
    named = {meaning.strip(): name.strip() for meaning, name in pairs.items()}
    if unknown := sorted(named.keys() - _GUESSES.keys()):
        raise ValueError(f"columns names {listed(unknown)}, which no layout reads; choose from {', '.join(_GUESSES)}.")
    return named


def _find_table(root: Path) -> Path | None:
    """Path of the table: the file itself, or the only one in a folder."""
    if root.is_file():
        return root if root.suffix.lower() in _SUFFIXES else None
    found = [path for path in root.glob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    found = [path for path in found if path.name != SPLIT_FILE_NAME and not path.name.startswith(".")]
    return found[0] if len(found) == 1 else None


def _matches(root: Path) -> bool:
    path = _find_table(root)
    if path is None:
        return False
    try:
        guessed = _match(path, _read_table(path)[0], {}, partly=True)
    except LayoutError:
        return False
    return guessed.keys() >= set(_NEEDED)


def _read_table(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header, and the place and values of each row."""
    if path.suffix.lower() != ".parquet":
        header, lines = read_csv(path)
        return header, [(f"line {line}", values) for line, values in lines]
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} is no Parquet file ({error}).") from error
    cells = frame.astype(object).where(frame.notna(), "").astype(str)
    return [str(name) for name in frame.columns], [
        (f"row {number}", [str(value).strip() for value in row])
        for number, row in enumerate(cells.itertuples(index=False, name=None), 1)
    ]


def _match(path: Path, header: list[str], named: Mapping[str, str], partly: bool = False) -> dict[str, str]:
    """Meaning to name of a column, named or guessed."""
    if absent := [name for name in named.values() if name not in header]:
        raise LayoutError(f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}.")
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise LayoutError(f"{path}: column {repeated[0]!r} appears twice; remove one of the two.")
    found = dict(named)
    for meaning, guesses in _GUESSES.items():
        fitting = [name for name in header if name.lower() in guesses and name not in named.values()]
        if meaning in found or not fitting:
            continue
        if len(fitting) > 1 and not partly:
            raise LayoutError(
                f"{path}: the columns {' and '.join(fitting)} may both be the {meaning}; name one, such as "
                f"columns={{'{meaning}': '{fitting[0]}'}} (--columns {meaning}={fitting[0]})."
            )
        found[meaning] = fitting[0]
    if not partly and (absent := [meaning for meaning in _NEEDED if meaning not in found]):
        raise LayoutError(
            f"{path}: no column is named like the {' or the '.join(absent)}; found {', '.join(header) or 'nothing'}. "
            f"Name it, such as columns={{'{absent[0]}': '{(header or ['...'])[0]}'}}."
        )
    return found


def _read(root: Path, *, columns: Mapping[str, str] | str | None = None) -> VideoRows:
    path = _find_table(root)
    if path is None:
        raise LayoutError(
            f"{root} is no table, nor a folder with exactly one; pass the path of a CSV or Parquet file."
        )
    header, lines = _read_table(path)
    named = parse_columns(columns)
    matched = _match(path, header, named)
    if guessed := [f"{meaning} is {matched[meaning]!r}" for meaning in matched if meaning not in named]:
        logger.warning_once(f"{path}: columns were guessed: {', '.join(guessed)}.")
    collector = RowCollector(path)
    entries = [(place, dict(zip(header, values))) for place, values in lines]
    videos = [Path(os.path.abspath(path.parent / Path(row[matched["path"]]).expanduser())) for _, row in entries]
    names = _names([row[matched["path"]] for _, row in entries], videos)
    for (place, row), video, name in zip(entries, videos, names):
        values = {meaning: row.pop(column) for meaning, column in matched.items()}
        if not values["path"]:
            collector.problems.append(f"{place}: {matched['path']} is empty; name the video, or remove the row")
            continue
        split = _SPLITS.get(values["split"].lower()) if "split" in values else None
        if "split" in values and split is None:
            collector.problems.append(
                f"{place}: {matched['split']} must be train, validation or test, got {values['split']!r}; correct it"
            )
            continue
        collector.add(
            place,
            name,
            video,
            values["ejection_fraction"],
            split,
            {meaning: values[meaning] for meaning in _NUMBERS if meaning in values},
            {**row, **{meaning: values[meaning] for meaning in _TEXTS if meaning in values}},
        )
    return collector.finish(path)


def _names(texts: list[str], videos: list[Path]) -> list[str]:
    """Name of every video: its path as the table has it, without the folders that all absolute ones share."""
    absolute = [video.parent for text, video in zip(texts, videos) if Path(text).expanduser().is_absolute()]
    shared = Path(os.path.commonpath(absolute)) if absolute else Path()
    return [
        without_suffix((video.relative_to(shared) if Path(text).expanduser().is_absolute() else Path(text)).as_posix())
        for text, video in zip(texts, videos)
    ]


TABLE = Layout(
    name="table",
    title="Echocardiogram videos with ejection fraction in percent, named by a table.",
    looks_for="a CSV or Parquet file with a column of paths and one of ejection fractions",
    matches=_matches,
    read=_read,
)
