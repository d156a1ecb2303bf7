"""Left-ventricular volume from a traced contour by the single-plane method of disks (modified Simpson)."""

from __future__ import annotations

import numpy as np


__all__ = ["NUM_DISKS", "disk_volume", "ejection_fraction"]

NUM_DISKS = 20


def disk_volume(tracing: np.ndarray, mm_per_pixel: float = 1.0) -> float:
    """Volume of a left ventricle traced as EchoNet-Dynamic traces it.

    Each chord is the diameter of a circular disk; all disks have the same height, the length of the long axis
    divided by the number of disks (Lang et al., J Am Soc Echocardiogr 2015, section on the method of disks).

    Args:
        tracing: `(1 + disks, 4)` array of X1, Y1, X2, Y2 in pixels. The first row is the long axis, the others
            are the chords perpendicular to it.
        mm_per_pixel: Size of a pixel in mm.

    Returns:
        The volume in millilitres (or in pixels^3 / 1000 if `mm_per_pixel` is left at 1).

    Raises:
        ValueError: If `tracing` is not a long axis and at least one chord.
    """
    tracing = np.asarray(tracing, dtype=np.float64)
    if tracing.ndim != 2 or tracing.shape[1] != 4 or len(tracing) < 2:
        raise ValueError(
            f"a tracing has the shape (1 + disks, 4): long axis first, then the chords; got {tracing.shape}"
        )
    lengths = np.hypot(tracing[:, 2] - tracing[:, 0], tracing[:, 3] - tracing[:, 1])
    disk_height = lengths[0] / (len(tracing) - 1)
    return float(np.pi / 4 * np.sum(lengths[1:] ** 2) * disk_height * mm_per_pixel**3 / 1000)


def ejection_fraction(end_diastolic_volume: float, end_systolic_volume: float) -> float:
    """Ejection fraction in percent, 100 (EDV - ESV) / EDV."""
    return 100 * (end_diastolic_volume - end_systolic_volume) / end_diastolic_volume
