"""Prediction intervals of an ejection fraction, calibrated on the errors of videos outside the training set."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .clip_sampling_echomen import parse_protocol
from .heart_failure_category_echomen import HEART_FAILURE_CATEGORIES, heart_failure_category, within_ef_range


__all__ = ["calibrate_intervals", "calibration_for", "check_calibration", "prediction_interval"]

# Wider than any error of an ejection fraction: the interval then reaches to the ends of its category.
_UNLIMITED = 100.0
_GROUP_LOSS = 0.01  # by which a group of the videos may be held less often than all of them


def calibrate_intervals(
    predictions: Sequence[float] | np.ndarray,
    references: Sequence[float] | np.ndarray,
    coverage: float = 0.9,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> dict[str, Any]:
    """Find, per heart-failure category, the range of errors that holds a given share of the videos.

    Split conformal prediction conditional on the category of the label (label-conditional or Mondrian, Vovk, Gammerman
    and Shafer 2005): of n videos in a category, the errors with ranks floor((n + 1) a / 2) and
    ceil((n + 1) (1 - a / 2)) for a = 1 - coverage enclose a further error with at least the given probability. So the
    few patients with a weak heart are covered as often as the many healthy ones, whatever the distribution of errors,
    as long as later videos are like those that calibrate. Where a category has too few videos for such ranks, fewer
    than 19 for 90 %, no error is ruled out: its part of the interval is as wide as the category.

    `groups` names what later videos may all be like, such as the machine of every video. Where the range holds a group
    less often than `coverage` by more than 0.01, both ranks move by as little as brings each group there, or as near
    to it as they can.

    The result holds `coverage`; `offsets`, by category the lowest and highest of (label - prediction) in EF points;
    and `num_videos` by category.
    """
    predicted, labels = np.asarray(predictions, np.float64).ravel(), np.asarray(references, np.float64).ravel()
    named = np.zeros(len(labels)) if groups is None else np.asarray(groups).ravel()
    if not len(predicted) == len(labels) == len(named):
        raise ValueError(
            f"Got {len(predicted)} predictions for {len(labels)} ejection fractions in {len(named)} groups; each "
            "needs one."
        )
    if not (np.isfinite(predicted).all() and np.isfinite(labels).all()):
        raise ValueError("Intervals cannot be calibrated on predictions or ejection fractions that are not numbers.")
    if not 0 < coverage < 1:
        raise ValueError(f"`coverage` lies between 0 and 1, such as 0.9, got {coverage}.")
    categories = np.array([heart_failure_category(label) for label in labels.tolist()])
    offsets, num_videos = {}, {}
    for category in HEART_FAILURE_CATEGORIES:
        errors = (labels - predicted)[categories == category]
        offsets[category] = _range_of_errors(errors, named[categories == category], coverage)
        num_videos[category] = len(errors)
    return {"coverage": float(coverage), "offsets": offsets, "num_videos": num_videos}


def _range_of_errors(errors: np.ndarray, groups: np.ndarray, coverage: float) -> list[float]:
    order = np.argsort(errors, kind="stable")
    errors, groups = errors[order], groups[order]
    # The tiny term keeps products such as 40 * 0.05 whole.
    tail = math.floor((len(errors) + 1) * (1 - coverage) / 2 + 1e-9)
    if tail < 1:
        return [-_UNLIMITED, _UNLIMITED]
    # first and last error of every range that leaves out as many as equal tails do
    first = np.arange(2 * tail - 1)
    last = first + len(errors) - 2 * tail + 1
    shares = []
    for group in np.unique(groups):
        number = np.append(0, np.cumsum(groups == group))
        shares.append((number[last + 1] - number[first]) / number[-1])
    lowest = np.min(shares, axis=0)
    enough = np.flatnonzero(lowest >= min(coverage - _GROUP_LOSS, lowest.max()) - 1e-9)
    chosen = enough[np.abs(enough - (tail - 1)).argmin()]
    return [float(errors[first[chosen]]), float(errors[last[chosen]])]


def prediction_interval(ejection_fraction: float, calibration: dict[str, Any]) -> tuple[float, float]:
    """Find the interval that holds the true ejection fraction with the calibrated probability.

    A value in a category is possible if its distance to the prediction lies within the errors of that category. The
    interval reaches from the lowest to the highest possible value, and always includes the prediction.
    A prediction beyond 0 or 100 is moved there first. The interval of NaN is NaN.
    """
    predicted = float(within_ef_range(ejection_fraction))
    if math.isnan(predicted):
        return predicted, predicted
    ends = [predicted]
    for category, (low, high) in HEART_FAILURE_CATEGORIES.items():
        below, above = calibration["offsets"][category]
        part = (max(low, predicted + below), min(high, predicted + above))
        if part[0] <= part[1]:
            ends += part
    if len(ends) == 1:
        # Errors of every category point into another one; those of the category predicted are the nearest guess.
        ends += [predicted + offset for offset in calibration["offsets"][heart_failure_category(predicted)]]
    return float(within_ef_range(min(ends))), float(within_ef_range(max(ends)))


def check_calibration(calibration: dict[str, Any]) -> None:
    """Refuse what `calibrate_intervals` cannot have returned."""
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
    """Find the calibration of a model's prediction intervals, if it holds for a test protocol."""
    calibration = getattr(config, "interval_calibration", None)
    return calibration if calibration and calibration.get("protocol") == parse_protocol(protocol) else None
