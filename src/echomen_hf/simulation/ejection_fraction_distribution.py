"""Distributions of ejection fractions, and evenly spread samples of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

from ..labels import HEART_FAILURE_CATEGORIES


__all__ = ["TRAIN_COUNTS", "EjectionFractionDistribution", "ejection_fraction_at", "low_discrepancy"]

EjectionFractionDistribution = Literal["echonet", "uniform", "categories"]
"""`echonet`: EchoNet-Dynamic's training split. `uniform`: every EF as likely, so that weak hearts are seen as often as
strong ones. `categories`: every heart-failure category as likely, and within each as `echonet`."""

TRAIN_COUNTS = (7, 116, 337, 488, 724, 2411, 3131, 227, 22, 2)
"""Videos per 10 points of ejection fraction, from 0 to 100 percent (EchoNet-Dynamic, 7,465 training videos)."""

_LOWEST, _HIGHEST = 6.9, 97.0
_UNIFORM_LOWEST, _UNIFORM_HIGHEST = 8.0, 85.0


def ejection_fraction_at(
    quantile: np.ndarray | float, distribution: EjectionFractionDistribution = "echonet"
) -> np.ndarray:
    """Quantile function of the ejection fraction.

    EchoNet-Dynamic's cumulative counts are interpolated monotonically (PCHIP), so that each 10-point bin has exactly
    its share and the density has no steps.

    Args:
        quantile: Values within [0, 1].
        distribution: Name of the distribution.

    Returns:
        Ejection fractions in percent: 6.9 to 97 as in EchoNet-Dynamic, 8 to 85 for `uniform`.

    Raises:
        ValueError: If there is no such distribution.
    """
    if distribution == "uniform":
        return _UNIFORM_LOWEST + np.asarray(quantile) * (_UNIFORM_HIGHEST - _UNIFORM_LOWEST)
    if distribution not in ("echonet", "categories"):
        raise ValueError(
            f"unknown distribution of ejection fractions {distribution!r}: choose echonet, uniform or categories"
        )
    edges = np.array([_LOWEST, *range(10, 100, 10), _HIGHEST])
    cumulative = np.concatenate([[0], np.cumsum(TRAIN_COUNTS)]) / np.sum(TRAIN_COUNTS)
    grid = np.linspace(_LOWEST, _HIGHEST, 2001)
    shares = PchipInterpolator(edges, cumulative)(grid)
    if distribution == "categories":
        inner = [high for _, high in HEART_FAILURE_CATEGORIES.values()][:-1]
        bounds = np.interp([_LOWEST, *inner, _HIGHEST], grid, shares)
        quantile = np.interp(quantile, np.linspace(0, 1, len(bounds)), bounds)
    return np.asarray(np.interp(quantile, shares, grid))


def low_discrepancy(seed: int, index: np.ndarray | int, dimension: int) -> np.ndarray:
    """R2 sequence in [0, 1), shifted by the seed: evenly spread for any count; `dimension` is 0 or 1."""
    plastic_number = 1.3247179572447460
    shift = np.random.default_rng([seed, 0x5EED]).random(2)[dimension]
    return (shift + (np.asarray(index) + 1) * plastic_number ** -(dimension + 1)) % 1
