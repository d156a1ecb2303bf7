"""Telling simulated from real data, so that a result on the one is never taken for one on the other."""

from __future__ import annotations

from pathlib import Path


__all__ = ["README_NAME", "SYNTHETIC_NOTICE", "is_synthetic"]

README_NAME = "README.txt"
"""File in which a data set that this package simulates says so."""

SYNTHETIC_NOTICE = "This data set is SYNTHETIC. No patient is in it."
"""First line of that file."""


def is_synthetic(data_dir: str | Path) -> bool:
    """Tell whether a folder holds a data set that this package simulated.

    Args:
        data_dir: Folder in EchoNet-Dynamic's layout.

    Returns:
        True if its README.txt says so.
    """
    readme = Path(data_dir) / README_NAME
    return readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SYNTHETIC_NOTICE)
