"""Ranges of simulation parameters: differences between simulated patients and machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np


__all__ = ["Range", "Ranges", "fixed_parameter", "parameter", "sample_parameters"]

ParametersT = TypeVar("ParametersT")

Range = tuple[float, float] | tuple[float, float, float]
"""Lowest and highest value, drawn uniformly; or lowest, likeliest and highest value of a triangular distribution."""

Ranges = Mapping[str, Range]
"""Ranges of some fields of a parameter dataclass, by name."""


def parameter(low: float, high: float, unit: str, description: str) -> Any:
    """Dataclass field with a range, whose default is the middle of it."""
    metadata = {"range": (low, high), "unit": unit, "description": description}
    return dataclasses.field(default=(low + high) / 2, metadata=metadata)


def fixed_parameter(value: float, unit: str, description: str) -> Any:
    """Dataclass field that the reference simulation keeps at one value and that other profiles may vary."""
    return dataclasses.field(default=value, metadata={"unit": unit, "description": description})


def sample_parameters(
    cls: type[ParametersT], rng: np.random.Generator, ranges: Ranges | None = None, **fixed: Any
) -> ParametersT:
    """Draw every field of a parameter dataclass that has a range.

    Args:
        cls: Dataclass of fields of `parameter`, drawn from their own range with the middle as the likeliest value, and
            of `fixed_parameter`, which keep their default.
        rng: Source of randomness. One number is drawn per field with a range, fixed or not, so that fixing one value
            leaves the others as they were.
        ranges: Ranges that replace those of the fields, by field name.
        **fixed: Values that are not drawn.

    Returns:
        An instance of `cls`.

    Raises:
        TypeError: If `ranges` or `fixed` names a field that `cls` does not have.
    """
    ranges = ranges or {}
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    unknown = set(ranges) - {field.name for field in fields}
    if unknown:
        raise TypeError(f"{cls.__name__} has no parameter named {', '.join(sorted(unknown))}")
    drawn: dict[str, Any] = {}
    for field in fields:
        if field.name in ranges:
            drawn[field.name] = _draw(rng, ranges[field.name])
        elif "range" in field.metadata:
            low, high = field.metadata["range"]
            drawn[field.name] = _draw(rng, (low, (low + high) / 2, high))
    return cls(**{**drawn, **fixed})


def _draw(rng: np.random.Generator, limits: Range) -> float:
    return float(rng.uniform(*limits) if len(limits) == 2 else rng.triangular(*limits))
