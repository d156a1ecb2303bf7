"""Writing of files whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers.utils import SAFE_WEIGHTS_NAME


__all__ = ["file_checksum", "read_json", "replacing", "weights_checksum", "write_csv", "write_json", "write_text"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its place, and put it there once it is whole.

    Args:
        path: File; its folder is made if missing.

    Yields:
        Where to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write text in UTF-8 with line feeds, whole or not at all.

    Args:
        path: File; its folder is made if missing.
        text: Its content.

    Returns:
        Path of the file.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: str | Path, content: Any) -> Path:
    """Write numbers and text as JSON, whole or not at all; the same content gives the same bytes.

    Args:
        path: File; its folder is made if missing.
        content: What to write. NaN becomes null, numpy values numbers and lists, paths text.

    Returns:
        Path of the file.
    """
    text = json.dumps(_to_json(content), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return write_text(path, text + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: File.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object.")
    return content


def write_csv(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table whole or not at all: numbers in full, an empty cell for what is missing.

    Args:
        path: CSV file; its folder is made if missing.
        table: Table.

    Returns:
        Path of the file.
    """
    return write_text(path, table.to_csv(index=False, lineterminator="\n"))


def file_checksum(path: str | Path) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path: File.

    Returns:
        Hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_checksum(model: str | Path) -> str | None:
    """Compute the checksum of a model's weights, so that an evaluation of earlier ones is not taken for theirs.

    Args:
        model: Folder or Hub id of the model.

    Returns:
        SHA-256 in hexadecimal digits; `None` for an id, or for weights in several files.
    """
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
