"""Errors of a side against the reference, for values with a structure of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


__all__ = [
    "Comparer",
    "change_of_ejection_fraction",
    "change_of_first_step",
    "change_of_video_mean",
    "largest_change_by_start",
    "rise_of_mae",
]

LARGEST_CHANGE_OF_GRADIENTS = 0.5
"""Largest relative change of gradients that rounding can explain."""

Comparer = Callable[[NDArray[np.float64], NDArray[np.float64]], dict[str, float]]


def change_of_ejection_fraction(num_full_size: int, labels: NDArray[np.float64], largest: bool) -> Comparer:
    """Errors of ejection fractions: those of the full-size network first, then those of the trained checkpoint."""

    def compare(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
        change = np.abs(own - expected)
        found = {"largest_change_full_size": float(change[:num_full_size].max())}
        counted = change
        if len(labels):
            counted = change[num_full_size:]
            before, after = (np.abs(values[num_full_size:] - labels).mean() for values in (expected, own))
            found |= {
                "mean_change": float(counted.mean()),
                "largest_change": float(counted.max()),
                "mae": float(after),
                "rise_of_mae": float(after - before),
            }
        return {"error": float(change.max() if largest else counted.mean()), **found}

    return compare


def rise_of_mae(num_full_size: int, labels: NDArray[np.float64]) -> Comparer:
    """Rise of the mean absolute error of the trained checkpoint."""
    changes = change_of_ejection_fraction(num_full_size, labels, largest=False)

    def compare(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
        found = changes(expected, own)
        return found | {"error": max(0.0, found["rise_of_mae"])} if len(labels) else found

    return compare


def change_of_first_step(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Change of the first loss (its root, in EF points). Infinite if the gradients differ too much."""
    change = float(np.linalg.norm(own[1:] - expected[1:]) / np.linalg.norm(expected[1:]))
    error = float(abs(own[0] - expected[0])) if change <= LARGEST_CHANGE_OF_GRADIENTS else float("inf")
    return {"error": error, "change_of_gradients": change}


def largest_change_by_start(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Largest change of a clip, by its first frame. NaN if a clip is missing."""
    return {"error": float(np.abs(own - expected)[~np.isnan(expected)].max())}


def change_of_video_mean(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Mean change of a video of the trained checkpoint, averaged over its clips."""
    change = np.abs(np.nanmean(own, axis=1) - np.nanmean(expected, axis=1))
    counted = change[1:] if len(change) > 1 else change
    return {"error": float(counted.mean()), "largest_change": float(counted.max())}
