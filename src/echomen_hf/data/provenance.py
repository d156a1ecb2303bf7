"""Whether data are simulated or real, so that results on the one are never taken for results on the other."""

from __future__ import annotations

from pathlib import Path


__all__ = ["ECHONET_DYNAMIC_VIDEOS", "README_NAME", "SYNTHETIC_NOTICE", "is_synthetic"]

ECHONET_DYNAMIC_VIDEOS = {"train": 7465, "validation": 1288, "test": 1277}
"""Videos per split of EchoNet-Dynamic (Ouyang et al., Nature 2020)."""

README_NAME = "README.txt"
"""File in which a data set that this package simulates says so."""

SYNTHETIC_NOTICE = "This data set is SYNTHETIC. No patient is in it."
"""First line of that file."""


def is_synthetic(data_dir: str | Path) -> bool:
    """Whether the README.txt of a data folder says that this package simulated it."""
    readme = Path(data_dir) / README_NAME
    return readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(SYNTHETIC_NOTICE)
