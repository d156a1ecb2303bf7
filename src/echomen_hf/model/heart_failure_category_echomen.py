"""Heart-failure categories and their boundaries."""

import math
from typing import Any

import numpy as np


__all__ = [
    "CATEGORY_TITLES",
    "HEART_FAILURE_CATEGORIES",
    "category_probabilities",
    "heart_failure_category",
    "within_ef_range",
]

HEART_FAILURE_CATEGORIES: dict[str, tuple[float, float]] = {
    "hfref": (0.0, 40.0),
    "hfmref": (40.0, 50.0),
    "hfpef": (50.0, 100.0),
}
"""Heart-failure category to its half-open EF interval [low, high) in percent; the last one includes 100.

The paper's intervals. The guideline that it cites (ESC 2021) counts an EF of exactly 40 % as reduced.
"""

CATEGORY_TITLES = {"all": "All", "hfref": "HFrEF", "hfmref": "HFmrEF", "hfpef": "HFpEF"}
"""Category keys, in reporting order, to the way clinicians write them."""


def within_ef_range(ejection_fraction: Any) -> Any:
    """Move values to the nearest possible ejection fraction, 0 to 100 %; NaN stays NaN."""
    return np.clip(ejection_fraction, 0.0, 100.0)


def heart_failure_category(ejection_fraction: float) -> str:
    """Name the category of an EF in percent: `"hfref"`, `"hfmref"` or `"hfpef"`.

    Values outside [0, 100] belong to the nearest category.
    """
    if math.isnan(ejection_fraction):
        raise ValueError("NaN is no ejection fraction and belongs to no heart-failure category.")
    for name, (_, high) in HEART_FAILURE_CATEGORIES.items():
        if ejection_fraction < high:
            return name
    return name


def category_probabilities(ejection_fraction: float, standard_deviation: float) -> dict[str, float]:
    """Compute the probability of every category for a normal distribution of ejection fractions.

    Values outside [0, 100] count for the end categories. A standard deviation of 0 gives all to one category.
    """
    if not standard_deviation >= 0:
        raise ValueError(f"`standard_deviation` must not be negative, got {standard_deviation}.")
    own = heart_failure_category(ejection_fraction)
    if standard_deviation == 0:
        return {name: float(name == own) for name in HEART_FAILURE_CATEGORIES}
    below = 0.0
    probabilities = {}
    for name, (_, high) in HEART_FAILURE_CATEGORIES.items():
        z = (high - ejection_fraction) / (standard_deviation * math.sqrt(2))
        up_to = 1.0 if name == list(HEART_FAILURE_CATEGORIES)[-1] else 0.5 * (1 + math.erf(z))
        probabilities[name], below = up_to - below, up_to
    return probabilities
