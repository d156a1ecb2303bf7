"""Writing of files whole or not at all, their checksums, and text that is safe in a spreadsheet."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers.utils import SAFE_WEIGHTS_NAME


__all__ = [
    "escape_formula",
    "file_checksum",
    "folder_name",
    "folder_or_id",
    "hashed_name",
    "read_json",
    "replacing",
    "unescape_formula",
    "weights_checksum",
    "write_csv",
    "write_json",
    "write_text",
]

# The last four are the wide forms of the first ones, which spreadsheets take for them in some languages.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside a file to write to, and move it there once it is whole; a missing folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write text in UTF-8 with line feeds, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON, whole or not at all; the same content gives the same bytes.

    NaN becomes null, numpy values become numbers and lists, paths become text.
    """
    text = json.dumps(_to_json(content), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; anything else is a `ValueError` that names the file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object.")
    return content


def write_csv(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table whole or not at all: numbers in full, an empty cell for what is missing."""
    return write_text(path, table.to_csv(index=False, lineterminator="\n"))


def escape_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula; see `unescape_formula`."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """Take away the apostrophe of `escape_formula`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def folder_or_id(model: str | Path) -> str:
    """Name a folder as `folder_name` does, and leave an id on the Hub as it is."""
    return folder_name(model) if Path(model).is_dir() else str(model)


def folder_name(path: str | Path) -> str:
    """Name a folder by its last part, since those above may name people."""
    return Path(path).resolve().name


def hashed_name(name: str, salt: str = "") -> str:
    """Name that stands for another one in messages and records: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(f"{salt}{name}".encode()).hexdigest()[:16]


def file_checksum(path: str | Path) -> str:
    """Compute the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_checksum(model: str | Path) -> str | None:
    """Compute the checksum of a model's weights; `None` for a Hub id, or for weights in several files."""
    try:
        return file_checksum(Path(model) / SAFE_WEIGHTS_NAME)
    except OSError:
        return None


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _to_json(value.tolist())
    if isinstance(value, list | tuple):
        return [_to_json(entry) for entry in value]
    if isinstance(value, Path):
        return value.as_posix()
    return None if isinstance(value, float) and np.isnan(value) else value
