"""Workload of one side of a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


__all__ = ["Unavailable", "Workload"]


class Unavailable(Exception):
    """An optional package or a processor instruction that a workload needs is missing."""


class Workload:
    """Work that is timed.

    The constructor takes the options of its `Side`, prepares everything and is not timed. It raises `Unavailable` or
    `ModuleNotFoundError` if this machine cannot do the work.
    """

    def run(self) -> float:
        """Do the work once, which is timed, and return the number of items, such as clips."""
        raise NotImplementedError

    def values(self) -> NDArray[np.floating]:
        """Values that are compared with those of the other side, in the same shape."""
        raise NotImplementedError

    def notes(self) -> dict[str, Any]:
        """JSON values about this side for the report."""
        return {}
