"""Reading of data sets in the layouts that the tests write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from echomen_hf import load_videos
from echomen_hf.data.layouts import registry, splits, table, tables


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """`load_videos` with a cache of its own."""
    datasets.disable_progress_bars()

    def loader(root: Path, *args: Any, **options: Any) -> Any:
        return load_videos(root, *args, cache_dir=tmp_path / "cache", **options)

    return loader


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said while a data set is read."""
    said: list[str] = []
    for module in (registry, splits, table, tables):
        monkeypatch.setattr(module.logger, "warning_once", said.append)
    return said
