"""What one side of a comparison does: prepared once by its constructor, then run again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


__all__ = ["Unavailable", "Workload"]


class Unavailable(Exception):
    """What a workload needs is not there: an optional package, or an instruction of the processor."""


class Workload:
    """Work that is timed.

    The constructor takes the options of its `Side` and prepares everything; it is not timed. It raises `Unavailable`,
    or `ModuleNotFoundError` for an optional package, if this machine cannot do the work.
    """

    def run(self) -> float:
        """Do the work once; this alone is timed.

        Returns:
            Number of items done, such as clips, by which the time is divided.
        """
        raise NotImplementedError

    def values(self) -> NDArray[np.floating]:
        """Give the numbers that must agree with those of the other side.

        Returns:
            Array whose shape is the same on both sides.
        """
        raise NotImplementedError

    def notes(self) -> dict[str, Any]:
        """Tell what the report should say about this side.

        Returns:
            Values that JSON can hold.
        """
        return {}
