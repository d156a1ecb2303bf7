"""Which versions of which packages are installed, for the record of whatever depends on them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


__all__ = ["RESULT_PACKAGES", "installed_versions"]

RESULT_PACKAGES = ("datasets", "echomen_hf", "numpy", "torch", "transformers")
"""Packages whose versions decide the numbers of an evaluation."""


def installed_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Look up the versions of packages.

    Args:
        packages: Names of distributions.

    Returns:
        Version by name, `None` for a package that is not installed.
    """
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
