"""Import of optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType


__all__ = ["MissingExtraError", "import_extra"]


class MissingExtraError(ImportError, ValueError):
    """A package is missing that an optional feature needs; the message names the extra that installs it."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency, which the extra of `echomen-hf` installs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"This needs the package {module.partition('.')[0]}: pip install 'echomen-hf[{extra}]'. ({error})"
        ) from error
