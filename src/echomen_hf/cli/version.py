"""The command `echomen version`."""

from __future__ import annotations

import platform


def main() -> None:
    """Print the versions of this package and its libraries."""
    from ..runs.installed_versions import RESULT_PACKAGES, installed_versions

    for name, version in {"python": platform.python_version(), **installed_versions(RESULT_PACKAGES)}.items():
        print(f"{name} {version or 'is not installed'}")
