"""Colour of frames: luma and chroma of RGB, and the share that is coloured, as in colour Doppler."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


__all__ = ["COLOURED_SHARE", "LUMA_WEIGHTS", "ColourMeter", "chroma_of_rgb", "coloured_share", "luma_of_rgb"]

COLOURED_SHARE = 0.01
"""Share of the picture from which a clip is taken for colour Doppler.

A judgement, not a measurement on patients: what a machine draws in colour (the trace of the ECG, markers, text, the
colour bar) is thin and covers hardly any area, a logo half of this, and flow through a valve several times as much.
"""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

_CELLS = 28  # along the shorter side: 4 pixels of an EchoNet-Dynamic frame
_FULL = 0.6  # of the pixels of a cell
_CHROMA = 24  # levels from neutral: what compression leaves in gray pixels stays below, dark red flow lies above
_LOWEST_NEUTRAL = np.uint8(128 - _CHROMA)
_PERIOD = 5  # frames; flow that lasts a third of a heart beat is met at 50 frames per second and at 25


class ColourMeter:
    """Largest share of colour among every fifth frame of a clip: flow comes and goes within a heart beat."""

    def __init__(self) -> None:
        self.share = 0.0
        self._num_frames = 0

    def wants_frame(self) -> bool:
        """Count one frame and say whether its colour is to be measured."""
        self._num_frames += 1
        return self._num_frames % _PERIOD == 1

    def add(self, blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> None:
        """Measure a frame; see `coloured_share`."""
        self.share = max(self.share, coloured_share(blue, red))


def coloured_share(blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> float:
    """Share of a frame that is covered by coloured areas.

    The picture is divided into square cells, 28 along its shorter side. A cell is coloured if most of its pixels are,
    and counts if it belongs to a square of four that are: lines and letters form none.

    Args:
        blue: Chroma Cb, neutral at 128, at any resolution, uint8, shape (H, W).
        red: Chroma Cr, likewise.
    """
    # Wrapping around at 0 puts levels that are too low above those that are too high.
    coloured = np.maximum(blue - _LOWEST_NEUTRAL, red - _LOWEST_NEUTRAL) > 2 * _CHROMA
    if not coloured.any():
        return 0.0
    side = max(1, min(coloured.shape) // _CELLS)
    rows, columns = coloured.shape[0] // side, coloured.shape[1] // side
    cells = coloured[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3)) >= _FULL
    squares = cells[:-1, :-1] & cells[1:, :-1] & cells[:-1, 1:] & cells[1:, 1:]
    counted = np.zeros_like(cells)
    for part in (counted[:-1, :-1], counted[1:, :-1], counted[:-1, 1:], counted[1:, 1:]):
        part |= squares
    return float(counted.mean())


def luma_of_rgb(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Luma (ITU-R BT.601) of red, green and blue from 0 to 255, shape (..., 3)."""
    return np.rint(frames.astype(np.float64) @ LUMA_WEIGHTS).astype(np.uint8)  # (..., H, W, 3) -> (..., H, W)


def chroma_of_rgb(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cb and Cr (ITU-R BT.601, full range), neutral at 128, uint8, of a frame of shape (H, W, 3)."""
    pixels = frame.astype(np.float32)
    luma = pixels @ LUMA_WEIGHTS.astype(np.float32)
    chroma = np.stack([(pixels[..., 2] - luma) / 1.772, (pixels[..., 0] - luma) / 1.402])
    blue, red = np.clip(np.rint(128 + chroma), 0, 255).astype(np.uint8)
    return blue, red
