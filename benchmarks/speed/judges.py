"""What counts as the error of a faster way, for values that are more than one array of the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


__all__ = [
    "Judge",
    "change_of_ejection_fraction",
    "change_of_first_step",
    "change_of_video_mean",
    "largest_change_by_start",
    "rise_of_mae",
]

LARGEST_CHANGE_OF_GRADIENTS = 0.5
"""Relative change of gradients up to which rounding and the layout of batch statistics may be the cause."""

Judge = Callable[[NDArray[np.float64], NDArray[np.float64]], dict[str, float]]


def change_of_ejection_fraction(num_full_size: int, labels: NDArray[np.float64], largest: bool) -> Judge:
    """Make a judge of the ejection fractions that `workloads.inference` gives.

    Args:
        num_full_size: Clips of the full-size network, whose values come first.
        labels: EF of the clips of the trained checkpoint in percent, whose values follow; empty without one.
        largest: Whether the error is the largest change of any clip; else the mean change of the trained checkpoint's
            clips, or of all clips without one.

    Returns:
        The judge. Besides `error` it gives the mean and largest change and the rise of the MAE of the trained
        checkpoint, and the largest change of the full-size network.
    """

    def judge(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
        change = np.abs(own - expected)
        judged = {"largest_change_full_size": float(change[:num_full_size].max())}
        counted = change
        if len(labels):
            counted = change[num_full_size:]
            before, after = (np.abs(values[num_full_size:] - labels).mean() for values in (expected, own))
            judged |= {
                "mean_change": float(counted.mean()),
                "largest_change": float(counted.max()),
                "mae": float(after),
                "rise_of_mae": float(after - before),
            }
        return {"error": float(change.max() if largest else counted.mean()), **judged}

    return judge


def rise_of_mae(num_full_size: int, labels: NDArray[np.float64]) -> Judge:
    """Make a judge by the mean absolute error of the trained checkpoint.

    Args:
        num_full_size: Clips of the full-size network, whose values come first.
        labels: EF of the clips of the trained checkpoint in percent.

    Returns:
        The judge; a fall of the error is an error of 0.
    """
    changes = change_of_ejection_fraction(num_full_size, labels, largest=False)

    def judge(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
        judged = changes(expected, own)
        return judged | {"error": max(0.0, judged["rise_of_mae"])} if len(labels) else judged

    return judge


def change_of_first_step(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Judge the first step of a training.

    Args:
        expected: Root of the loss in EF points, and lengths of the gradients of filters, shape (1 + filters,).
        own: The same.

    Returns:
        `error`, the change of the first; `change_of_gradients`, the distance of the others over their length. The
        error is infinite where gradients differ by more than a half: such a training goes another way.
    """
    change = float(np.linalg.norm(own[1:] - expected[1:]) / np.linalg.norm(expected[1:]))
    error = float(abs(own[0] - expected[0])) if change <= LARGEST_CHANGE_OF_GRADIENTS else float("inf")
    return {"error": error, "change_of_gradients": change}


def largest_change_by_start(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Judge the clips of videos, each by its start.

    Args:
        expected: EF in percent, shape (videos, starts), NaN where there is no clip.
        own: The same.

    Returns:
        `error`, the largest change of a clip; not a number if a clip is missing.
    """
    return {"error": float(np.abs(own - expected)[~np.isnan(expected)].max())}


def change_of_video_mean(expected: NDArray[np.float64], own: NDArray[np.float64]) -> dict[str, float]:
    """Judge the mean of the clips of every video, which need not be the same clips.

    Args:
        expected: EF in percent, shape (videos, starts), NaN where there is no clip; the first row is the full-size
            network's.
        own: The same.

    Returns:
        `error`, the mean change of a video of the trained checkpoint, and the largest; of the full-size network's one
        video if there is no other.
    """
    change = np.abs(np.nanmean(own, axis=1) - np.nanmean(expected, axis=1))
    counted = change[1:] if len(change) > 1 else change
    return {"error": float(counted.mean()), "largest_change": float(counted.max())}
