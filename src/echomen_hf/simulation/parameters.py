"""Ranges of simulation parameters: what differs between simulated patients and machines is declared once."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np


__all__ = ["parameter", "sample_parameters"]

ParametersT = TypeVar("ParametersT")


def parameter(low: float, high: float, unit: str, description: str) -> Any:
    """Declare a dataclass field whose default is the middle of its range.

    Args:
        low: Smallest value a sampled clip can have, in `unit`.
        high: Largest value a sampled clip can have, in `unit`.
        unit: Unit of the value, empty for a pure number.
        description: What the value is.

    Returns:
        A `dataclasses.field` with the range, the unit and the description in its metadata.
    """
    metadata = {"range": (low, high), "unit": unit, "description": description}
    return dataclasses.field(default=(low + high) / 2, metadata=metadata)


def sample_parameters(cls: type[ParametersT], rng: np.random.Generator, **fixed: Any) -> ParametersT:
    """Draw every ranged field of a parameter dataclass, the middle of each range being the likeliest.

    Args:
        cls: Dataclass whose fields were declared with `parameter`; its other fields keep their default.
        rng: Source of randomness. One number is drawn per ranged field, fixed or not, so that fixing
            one value leaves the others as they were.
        **fixed: Values that are not to be drawn.

    Returns:
        An instance of `cls`.

    Raises:
        TypeError: If `fixed` names a field that `cls` does not have.
    """
    drawn: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if "range" in field.metadata:
            low, high = field.metadata["range"]
            drawn[field.name] = float(rng.triangular(low, (low + high) / 2, high))
    return cls(**{**drawn, **fixed})
