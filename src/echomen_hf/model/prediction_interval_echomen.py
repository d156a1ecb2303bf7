"""Prediction intervals of an ejection fraction, calibrated by the errors on videos that training did not fit."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .clip_sampling_echomen import parse_protocol
from .heart_failure_category_echomen import HEART_FAILURE_CATEGORIES, heart_failure_category


__all__ = ["calibrate_intervals", "calibration_for", "check_calibration", "prediction_interval"]

# Wider than any error of an ejection fraction: the interval then reaches to the ends of its category.
_UNLIMITED = 100.0


def calibrate_intervals(
    predictions: Sequence[float] | np.ndarray,
    references: Sequence[float] | np.ndarray,
    coverage: float = 0.9,
) -> dict[str, Any]:
    """Find, per heart-failure category, the range of errors that holds a given share of the videos.

    Split conformal prediction conditional on the category of the label (label-conditional or Mondrian, Vovk, Gammerman
    and Shafer 2005): of n videos in a category, the errors with ranks floor((n + 1) a / 2) and
    ceil((n + 1) (1 - a / 2)) for a = 1 - coverage enclose a further error with at least the given probability. So the
    few patients with a weak heart are covered as often as the many healthy ones, whatever the distribution of errors,
    as long as later videos are like those that calibrate. Where a category has too few videos for such ranks, 19 for
    90 %, no error is ruled out: its part of the interval is as wide as the category.

    Args:
        predictions: EF predicted in percent, shape (N,).
        references: EF in percent, shape (N,).
        coverage: Share of the videos that intervals are to hold, in (0, 1).

    Returns:
        `coverage`; `offsets`, by category the lowest and highest of (label - prediction) in EF points; `num_videos` by
        category. Plain numbers that JSON keeps.

    Raises:
        ValueError: If lengths differ, a value is not a number, or the coverage is not a share.
    """
    predicted, labels = np.asarray(predictions, np.float64).ravel(), np.asarray(references, np.float64).ravel()
    if len(predicted) != len(labels):
        raise ValueError(f"Got {len(predicted)} predictions for {len(labels)} ejection fractions; each needs one.")
    if not (np.isfinite(predicted).all() and np.isfinite(labels).all()):
        raise ValueError("Intervals cannot be calibrated on predictions or ejection fractions that are not numbers.")
    if not 0 < coverage < 1:
        raise ValueError(f"`coverage` lies between 0 and 1, such as 0.9, got {coverage}.")
    categories = np.array([heart_failure_category(label) for label in labels.tolist()])
    offsets, num_videos = {}, {}
    for category in HEART_FAILURE_CATEGORIES:
        errors = np.sort((labels - predicted)[categories == category])
        # The tiny term keeps products such as 40 * 0.05 whole.
        tail = math.floor((len(errors) + 1) * (1 - coverage) / 2 + 1e-9)
        enough = tail >= 1
        offsets[category] = [float(errors[tail - 1]), float(errors[-tail])] if enough else [-_UNLIMITED, _UNLIMITED]
        num_videos[category] = len(errors)
    return {"coverage": float(coverage), "offsets": offsets, "num_videos": num_videos}


def prediction_interval(ejection_fraction: float, calibration: dict[str, Any]) -> tuple[float, float]:
    """Find the interval that holds the true ejection fraction with the calibrated probability.

    A value in a category is possible if its distance to the prediction lies within the errors of that category; the
    interval reaches from the lowest to the highest possible value.

    Args:
        ejection_fraction: EF predicted in percent.
        calibration: Result of `calibrate_intervals`.

    Returns:
        Lowest and highest EF in percent, within [0, 100].
    """
    parts = []
    for category, (low, high) in HEART_FAILURE_CATEGORIES.items():
        below, above = calibration["offsets"][category]
        part = (max(low, ejection_fraction + below), min(high, ejection_fraction + above))
        if part[0] <= part[1]:
            parts.append(part)
    if not parts:
        # Errors of every category point into another one; those of the category predicted are the nearest guess.
        offsets = calibration["offsets"][heart_failure_category(ejection_fraction)]
        parts = [(ejection_fraction + offsets[0], ejection_fraction + offsets[1])]
    ends = min(part[0] for part in parts), max(part[1] for part in parts)
    return min(max(ends[0], 0.0), 100.0), min(max(ends[1], 0.0), 100.0)


def check_calibration(calibration: dict[str, Any]) -> None:
    """Refuse what `calibrate_intervals` cannot have returned.

    Args:
        calibration: Stored calibration.

    Raises:
        ValueError: If something is missing or no number.
    """
    offsets: Any = calibration.get("offsets")
    known = isinstance(offsets, dict) and set(offsets) == set(HEART_FAILURE_CATEGORIES)
    known = known and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in offsets.values())
    numbers = [calibration.get("coverage"), *(value for pair in offsets.values() for value in pair)] if known else []
    numeric = bool(numbers) and all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
    if not numeric or not isinstance(calibration.get("protocol"), str):
        raise ValueError(
            "`interval_calibration` must hold `coverage`, the test `protocol` and, in `offsets`, two numbers for each "
            f"of {', '.join(HEART_FAILURE_CATEGORIES)}, as `calibrate_intervals` returns them; got {calibration}."
        )


def calibration_for(config: Any, protocol: str | int) -> dict[str, Any] | None:
    """Find the calibration of a model's prediction intervals, if it holds for a test protocol.

    Args:
        config: Configuration of the model, perhaps of another architecture.
        protocol: Test protocol of the predictions.

    Returns:
        The calibration. `None` if the model has none, or it comes from another protocol, whose errors differ.
    """
    calibration = getattr(config, "interval_calibration", None)
    return calibration if calibration and calibration.get("protocol") == parse_protocol(protocol) else None
