"""Evenly spread numbers that are known from their index alone."""

from __future__ import annotations

import numpy as np


__all__ = ["low_discrepancy"]


def low_discrepancy(seed: int, index: np.ndarray | int, dimension: int) -> np.ndarray:
    """Give numbers of the R2 sequence shifted by the seed: evenly spread for any count, known from the index alone.

    Args:
        seed: Seed of the shift.
        index: Index or indices, from 0.
        dimension: 0 or 1.

    Returns:
        Numbers in [0, 1), of the shape of `index`.
    """
    plastic_number = 1.3247179572447460
    shift = np.random.default_rng([seed, 0x5EED]).random(2)[dimension]
    return (shift + (np.asarray(index) + 1) * plastic_number ** -(dimension + 1)) % 1
