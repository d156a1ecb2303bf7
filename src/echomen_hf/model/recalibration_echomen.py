"""Recalibration of ejection fractions for the videos of one site, by a rising line or curve."""

import math
from typing import Any

import torch


__all__ = ["check_recalibration", "recalibrate"]


def recalibrate(ejection_fraction: torch.Tensor, recalibration: dict[str, Any] | None) -> torch.Tensor:
    """Correct ejection fractions in percent, of any shape, by a curve that is linear between its points.

    Below the first and above the last point, the curve is constant. NaN stays NaN.
    """
    if recalibration is None:
        return ejection_fraction
    predicted, corrected = (ejection_fraction.new_tensor(recalibration[key]) for key in ("predicted", "corrected"))
    value = ejection_fraction.clamp(predicted[0], predicted[-1])
    right = torch.searchsorted(predicted, value.detach().contiguous()).clamp(1, len(predicted) - 1)
    share = (value - predicted[right - 1]) / (predicted[right] - predicted[right - 1])
    return torch.lerp(corrected[right - 1], corrected[right], share)


def check_recalibration(recalibration: dict[str, Any]) -> None:
    """Refuse what is not a rising curve."""
    predicted, corrected = (recalibration.get(key) for key in ("predicted", "corrected"))
    known = all(isinstance(values, (list, tuple)) for values in (predicted, corrected))
    points: list[Any] = list(zip(predicted or (), corrected or ())) if known else []
    numeric = all(isinstance(value, (int, float)) and math.isfinite(value) for point in points for value in point)
    if not (numeric and len(points) >= 2 and len(predicted or ()) == len(corrected or ())) or any(
        left[0] >= right[0] or left[1] > right[1] for left, right in zip(points, points[1:])
    ):
        raise ValueError(
            "`recalibration` must hold two lists of numbers of the same length, at least 2: `predicted`, each larger "
            f"than the one before, and `corrected`, none smaller than the one before; got {recalibration}."
        )
