"""Files of an archive, here or where fsspec has a driver, by names that tell nothing about the folders above."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from ..model.dicom_reading_echomen import is_dicom
from ..model.video_source_echomen import VIDEO_SUFFIXES, VideoReadError
from ..runs.files import replacing, unescape_formula
from .predictor import find_videos


__all__ = ["ArchiveFile", "Place", "list_files", "read_manifest", "require_table"]

PATH_COLUMNS = ("path", "file", "file_name")
"""Columns of a manifest that may hold the files; the first one that is there does."""

MAX_REMOTE_BYTES = 2**31
"""Largest file that is read from a URL, since it is held in memory."""


class Place:
    """A file or folder, by its path or URL; `local` is its path if it is on this machine."""

    def __init__(self, address: str | os.PathLike[str], system: AbstractFileSystem | None = None) -> None:
        self.system: Any = system
        self.path = os.fspath(address)
        if system is None and "://" in self.path:
            self.system, self.path = fsspec.core.url_to_fs(self.path)
        self.local: Path | None = None
        if self.system is None or isinstance(self.system, LocalFileSystem):
            self.local = Path(self.path).expanduser()
            self.path = str(self.local)
        self.name = PurePosixPath(self.path).name

    @property
    def address(self) -> str:
        """Absolute path or URL."""
        return str(self.local.absolute()) if self.local is not None else self.system.unstrip_protocol(self.path)

    def inside(self, name: str) -> Place:
        """File by its path from this folder."""
        return Place(self.local / name if self.local is not None else f"{self.path.rstrip('/')}/{name}", self.system)

    def beside(self, name: str) -> Place:
        """File by its path from the folder of this one."""
        folder = self.local.parent if self.local is not None else self.path.rpartition("/")[0]
        return Place(folder, self.system).inside(name)

    def siblings(self, pattern: str) -> list[Place]:
        """Files in the same folder whose whole name matches a regular expression."""
        if self.local is not None:
            folder = self.local.absolute().parent
            names = os.listdir(folder) if folder.is_dir() else []
        else:
            self.system.invalidate_cache()
            try:
                listed = self.system.ls(self.path.rpartition("/")[0], detail=False)
            except FileNotFoundError:
                listed = []
            names = [PurePosixPath(path).name for path in listed]
        return [self.beside(name) for name in sorted(names) if re.fullmatch(pattern, name)]

    def read(self) -> bytes | None:
        """Read the whole file; `None` if there is none."""
        try:
            return self.local.read_bytes() if self.local is not None else self.system.cat_file(self.path)
        except FileNotFoundError:
            return None

    def write(self, data: bytes) -> None:
        """Write the file, whole or not at all."""
        if self.local is not None:
            with replacing(self.local) as partial:
                partial.write_bytes(data)
        else:
            self.system.pipe_file(self.path, data)

    def remove(self) -> None:
        """Remove the file if it is there."""
        if self.local is not None:
            self.local.unlink(missing_ok=True)
        elif self.system.exists(self.path):
            self.system.rm_file(self.path)


def require_table(place: Place, columns: Iterable[str], start: str = "") -> None:
    """Refuse to replace any file but an earlier table with these columns: recordings, a manifest, labels.

    Args:
        place: Where a table is to be written. Nothing, or an empty file, may be there too.
        columns: Columns that any version of the table has.
        start: First line of the table, which an interruption may have cut off.
    """
    data = place.read()
    if not data or start.encode().startswith(data):
        return
    try:
        if place.name.lower().endswith(".parquet"):
            import pyarrow.parquet as pq  # type: ignore[import-untyped]

            header = pq.read_schema(io.BytesIO(data)).names
        else:
            header = next(csv.reader([data.split(b"\n", 1)[0].decode("utf-8")]))
    except (OSError, ValueError, csv.Error):
        header = []
    if not set(columns) <= set(header):
        raise ValueError(
            f"{place.name} exists and is no earlier table of this kind, so it is not replaced. Choose another "
            "`--output`."
        )


class RemoteFile:
    """A file at a URL, as `read_video` takes it: its bytes come when they are asked for."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.name = place.name

    def read(self) -> bytes:
        """Read the whole file."""
        try:
            size = self.place.system.size(self.place.path) or 0
        except FileNotFoundError:
            raise VideoReadError.about(self.name, "does not exist", "check the URL and its spelling") from None
        if size > MAX_REMOTE_BYTES:
            raise VideoReadError.about(
                self.name, f"has {size / 1e9:.1f} GB, more than is read from a URL", "download it and pass its path"
            )
        data = self.place.system.cat_file(self.place.path)
        if not data:
            raise VideoReadError.about(self.name, "is an empty file", "copy it again from its origin")
        return data


@dataclass(frozen=True)
class ArchiveFile:
    """A file to estimate.

    Args:
        name: What results call it.
        source: Its path, or what reads it from its URL.
        columns: What the manifest says about it.
    """

    name: str
    source: Path | RemoteFile
    columns: dict[str, str] = field(default_factory=dict)

    def without_path(self, text: str) -> str:
        """Put the name in place of the path, wherever text holds it, and the text in one line."""
        if not text:
            return ""
        if isinstance(self.source, Path):
            paths = {str(self.source), str(self.source.absolute()), os.path.realpath(self.source)}
        else:
            path = self.source.place.path
            paths = {path, path.lstrip("/"), self.source.place.address}
        paths |= {repr(path)[1:-1] for path in paths}
        for path in sorted(paths, key=len, reverse=True):
            if "/" in path:
                text = text.replace(path, self.name)
        return _printable(" ".join(text.split()))


def list_files(paths: Iterable[str | Path], *, absolute_paths: bool = False) -> list[ArchiveFile]:
    """List files, and the videos inside folders, see `find_videos`.

    A file in a folder is named by its path from that folder, and a file that was given itself by its own name. Where
    two have the same name, the number of what was given stands before it: `input2/clip.avi`.

    Args:
        paths: Paths or URLs of files and folders.
        absolute_paths: Whether to name files by their absolute paths or URLs instead.

    Returns:
        Files, each once, in the order given, those of a folder in alphabetical order.

    Raises:
        FileNotFoundError: If something does not exist, or a folder holds no video.
        ValueError: If two files have the same name even so.
    """
    found: dict[str, tuple[int, str, Place]] = {}
    for number, path in enumerate(paths, 1):
        for name, place in _videos_in(Place(path)):
            found.setdefault(place.path, (number, name, place))
    return _named([(number, name, place, {}) for number, name, place in found.values()], "input", absolute_paths)


def read_manifest(manifest: str | Path, *, absolute_paths: bool = False) -> list[ArchiveFile]:
    """Read the files that a table names.

    A file is named by its path as the table has it, if that is relative, and else by its own name. Where two have the
    same name, the number of the row stands before it: `row2/clip.avi`.

    Args:
        manifest: Path or URL of a CSV or Parquet file. Its column `path`, `file` or `file_name` holds paths, relative
            to the manifest's folder or absolute, or URLs.
        absolute_paths: Whether to name files by their absolute paths or URLs instead.

    Returns:
        Files in the order of the table. They need not exist yet.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ValueError: If it cannot be read, or names no files.
    """
    import pandas as pd

    place = Place(manifest)
    data = place.read()
    if data is None:
        raise FileNotFoundError(f"The manifest {place.name} does not exist.")
    try:
        if place.name.lower().endswith(".parquet"):
            table = pd.read_parquet(io.BytesIO(data)).astype("string").fillna("")
        else:
            table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8-sig")
            table = table.map(unescape_formula)
    except (OSError, ValueError) as error:
        raise ValueError(f"The manifest {place.name} is no CSV or Parquet file ({error}).") from error
    column = next((name for name in PATH_COLUMNS if name in table), None)
    if column is None:
        raise ValueError(
            f"The manifest {place.name} has no column {', '.join(PATH_COLUMNS)}, only {', '.join(map(str, table))}."
        )
    entries = []
    for number, row in enumerate(table.to_dict("records"), 1):
        path = str(row.pop(column))
        if not path.strip():
            raise ValueError(f"Row {number} of the manifest {place.name} has an empty {column}; fill it or remove it.")
        is_relative = "://" not in path and not Path(path).expanduser().is_absolute()
        name = PurePosixPath(path)
        file = place.beside(path) if is_relative else Place(path)
        known = is_relative and ".." not in name.parts
        entries.append((number, str(name) if known else file.name, file, {str(key): row[key] for key in row}))
    if not entries:
        raise ValueError(f"The manifest {place.name} has no rows.")
    return _named(entries, "row", absolute_paths)


def _videos_in(place: Place) -> list[tuple[str, Place]]:
    """Find the videos at a place, with their paths from there."""
    folder = place.local
    if folder is not None:
        try:
            found = find_videos([folder])
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).replace(place.path, place.name or ".")) from None
        is_folder = folder.is_dir()
        return [(path.relative_to(folder).as_posix() if is_folder else path.name, Place(path)) for path in found]
    if not place.system.exists(place.path):
        raise FileNotFoundError(f"{place.name} does not exist.")
    if not place.system.isdir(place.path):
        return [(place.name, place)]
    root = place.path.rstrip("/")
    inside = [path.removeprefix(root).lstrip("/") for path in place.system.find(root)]
    files = [(name, place.inside(name)) for name in sorted(inside)]
    videos = [(name, file) for name, file in files if _looks_like_video(file)]
    if not videos:
        raise FileNotFoundError(f"{place.name} holds no video; looked for {', '.join(VIDEO_SUFFIXES)}.")
    return videos


def _looks_like_video(place: Place) -> bool:
    """Do for a URL what `find_videos` does for a path."""
    if place.name.startswith(".") or place.name.upper() == "DICOMDIR":
        return False
    if place.name.lower().endswith(VIDEO_SUFFIXES):
        return True
    try:
        return is_dicom(place.system.cat_file(place.path, start=0, end=132))
    except (VideoReadError, OSError):
        return False


def _named(
    entries: list[tuple[int, str, Place, dict[str, str]]], what: str, absolute_paths: bool
) -> list[ArchiveFile]:
    """Give every file a name of its own."""
    times = Counter(name for _, name, _, _ in entries)
    files = []
    for number, name, place, columns in entries:
        if absolute_paths:
            name = place.address
        elif times[name] > 1:
            name = f"{what}{number}/{name}"
        source = place.local if place.local is not None else RemoteFile(place)
        files.append(ArchiveFile(_printable(name), source, columns))
    if repeated := [name for name, count in Counter(file.name for file in files).items() if count > 1]:
        raise ValueError(
            f"Two files would both be called {repeated[0]}. Give each once, or use `--absolute_paths`, which tells "
            "them apart."
        )
    return files


def _printable(text: str) -> str:
    """Spell out what cannot be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
