"""Versions of installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


__all__ = ["RESULT_PACKAGES", "installed_versions"]

RESULT_PACKAGES = ("datasets", "echomen_hf", "numpy", "torch", "transformers")
"""Packages whose versions decide the numbers of an evaluation."""


def installed_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Look up versions by name of distribution; `None` for a package that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
