"""Sources of clips: paths, bytes, open files and data set rows."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Union, cast


__all__ = ["VIDEO_SUFFIXES", "ResolvedSource", "VideoReadError", "VideoSource", "named_errors", "resolve_source"]

VIDEO_SUFFIXES = (
    *(".avi", ".mp4", ".mkv", ".mov", ".m4v", ".webm", ".wmv", ".mpg", ".mpeg", ".gif", ".dcm", ".dicom"),
    *(".nii", ".nii.gz"),
)
"""Endings by which a file is taken for a clip; reading goes by content."""


class VideoReadError(ValueError):
    """A clip cannot be read; the message names the file, what is wrong and the remedy.

    Args:
        message: The whole message.
        problem: What is wrong, without the file name.
        remedy: What the user can do about it.
    """

    def __init__(self, message: str, *, problem: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.problem = problem or message
        self.remedy = remedy

    @classmethod
    def about(cls, name: str, problem: str, remedy: str) -> VideoReadError:
        """Compose the message from its three parts: the file as the user knows it, and two clauses."""
        return cls(f"{name}: {problem}; {remedy}.", problem=problem, remedy=remedy)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Turn whatever a library raises into a `VideoReadError` with the name of the file."""
    try:
        yield
    except VideoReadError:
        raise
    except Exception as error:
        # What a library says of a DICOM file may quote fields of a patient.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise VideoReadError.about(name, f"cannot be read ({reason})", "copy or export it again") from error


VideoSource = Union[str, "os.PathLike[str]", bytes, BinaryIO, Mapping[str, Any]]
"""A path, the bytes of a file, an open binary file, or the `{"path": ..., "bytes": ...}` of a `datasets.Video`."""


@dataclass(frozen=True)
class ResolvedSource:
    """A clip ready to be opened.

    Args:
        name: What messages call it.
        target: An existing path, or a seekable binary file at its start.
    """

    name: str
    target: str | BinaryIO

    @property
    def suffix(self) -> str:
        """Lower-case suffix of the file name, with its dot; empty when there is no name."""
        return PurePath(self.name).suffix.lower()

    @contextmanager
    def open(self, *, read_ahead: int = io.DEFAULT_BUFFER_SIZE) -> Iterator[BinaryIO]:
        """Open the raw bytes at their start; of a path, at least `read_ahead` bytes are read at a time."""
        if isinstance(self.target, str):
            with open(self.target, "rb", buffering=read_ahead) as file:
                yield file
        else:
            self.target.seek(0)
            yield self.target


def resolve_source(source: VideoSource | ResolvedSource) -> ResolvedSource:
    """Turn any accepted kind of source into a path or a seekable file.

    Files opened by the caller are rewound and left open. A resolved source comes back as it is.

    Raises:
        VideoReadError: For a URL, a missing or empty file, or a folder.
        TypeError: For any other kind of object.
    """
    if isinstance(source, ResolvedSource):
        return source
    if isinstance(source, Mapping):
        path, data = source.get("path"), source.get("bytes")
        if data is not None:
            return ResolvedSource(PurePath(path).name if path else "<bytes>", _seekable(data))
        if path is None:
            raise VideoReadError.about("video", "has neither a path nor bytes", "pass one of the two")
        return resolve_source(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return ResolvedSource("<bytes>", _seekable(source))
    if hasattr(source, "read"):
        stream = cast(BinaryIO, source)
        name = getattr(stream, "name", None)
        if not (hasattr(stream, "seekable") and stream.seekable()):
            stream = io.BytesIO(stream.read())
        stream.seek(0)
        return ResolvedSource(PurePath(name).name if isinstance(name, str) else "<file>", stream)
    if isinstance(source, (str, os.PathLike)):
        return _resolve_path(os.fspath(source))
    raise TypeError(
        f"Cannot read a video from {type(source).__name__}: pass a path, bytes, an open binary file, "
        'or a dictionary with "path" and "bytes".'
    )


def _seekable(data: bytes | bytearray | memoryview) -> BinaryIO:
    if len(data) == 0:
        raise VideoReadError.about("<bytes>", "is empty", "pass the bytes of a whole video file")
    return io.BytesIO(data)


def _resolve_path(text: str) -> ResolvedSource:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise VideoReadError.about(text, "is a URL", "download the file and pass its path")
    path = Path(text).expanduser()
    if path.is_dir():
        raise VideoReadError.about(text, "is a folder", "pass one video file")
    if not path.exists():
        raise VideoReadError.about(text, "does not exist", "check the path and its spelling")
    if path.stat().st_size == 0:
        raise VideoReadError.about(text, "is an empty file", "copy it again from its origin")
    return ResolvedSource(text, str(path))
