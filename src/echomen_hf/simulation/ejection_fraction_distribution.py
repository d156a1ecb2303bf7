"""The distribution of ejection fractions in EchoNet-Dynamic's training split."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator


__all__ = ["TRAIN_COUNTS", "ejection_fraction_at"]

TRAIN_COUNTS = (7, 116, 337, 488, 724, 2411, 3131, 227, 22, 2)
"""Videos per 10 points of ejection fraction, from 0 to 100 percent (EchoNet-Dynamic, 7,465 training videos)."""

_LOWEST, _HIGHEST = 6.9, 97.0


def ejection_fraction_at(quantile: np.ndarray | float) -> np.ndarray:
    """Quantile function of the ejection fraction.

    The cumulative counts are interpolated monotonically (PCHIP), so that each 10-point bin has exactly its share and
    the density has no steps.

    Args:
        quantile: Values within [0, 1].

    Returns:
        Ejection fractions in percent, from 6.9 to 97 as in EchoNet-Dynamic.
    """
    edges = np.array([_LOWEST, *range(10, 100, 10), _HIGHEST])
    cumulative = np.concatenate([[0], np.cumsum(TRAIN_COUNTS)]) / np.sum(TRAIN_COUNTS)
    grid = np.linspace(_LOWEST, _HIGHEST, 2001)
    return np.asarray(np.interp(quantile, PchipInterpolator(edges, cumulative)(grid), grid))
