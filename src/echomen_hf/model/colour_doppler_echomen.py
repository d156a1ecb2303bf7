"""Colour of frames: luma and chroma of RGB, and the share that is coloured, as in colour Doppler."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


__all__ = [
    "COLOURED_SHARE",
    "LUMA_WEIGHTS",
    "ColourMeter",
    "cell_middles",
    "chroma_of_rgb",
    "coloured_cells",
    "largest_share",
    "luma_of_rgb",
]

COLOURED_SHARE = 0.01
"""Share of the picture, or of the ultrasound fan on a screen, from which a clip is taken for colour Doppler.

A judgement, not a measurement on patients: what a machine draws in colour (the trace of the ECG, markers, text, the
colour bar) is thin and covers hardly any area, a logo half of this, and flow through a valve several times as much.
"""

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

_CELLS = 28  # along the shorter side of a small picture: 4 pixels of an EchoNet-Dynamic frame
_SMALL = 128  # pixels
_CELLS_OF_SCREEN = 64  # a fan is a part of a screen only, and drawn lines are finer there
_FULL = 0.6  # of the pixels of a cell
_CHROMA = 24  # levels from neutral: what compression leaves in gray pixels stays below, dark red flow lies above
_LOWEST_NEUTRAL = np.uint8(128 - _CHROMA)
_PERIOD = 5  # frames; flow that lasts a third of a heart beat is met at 50 frames per second and at 25


class ColourMeter:
    """Coloured cells of every fifth frame of a clip: flow comes and goes within a heart beat."""

    def __init__(self) -> None:
        self._cells: list[NDArray[np.bool_]] = []
        self._num_frames = 0

    @property
    def cells(self) -> NDArray[np.bool_]:
        """Coloured cells of the frames that were measured, shape (K, rows, columns)."""
        return np.stack(self._cells) if self._cells else np.zeros((0, 1, 1), dtype=bool)

    def wants_frame(self) -> bool:
        """Count one frame and say whether its colour is to be measured."""
        self._num_frames += 1
        return self._num_frames % _PERIOD == 1

    def add(self, blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> None:
        """Measure a frame; see `coloured_cells`."""
        self._cells.append(coloured_cells(blue, red))


def coloured_cells(blue: NDArray[np.uint8], red: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the coloured cells of a frame.

    The picture is divided into square cells, 28 along its shorter side, or 64 along that of a large picture. A cell is
    coloured if most of its pixels are.

    Args:
        blue: Chroma Cb, neutral at 128, at any resolution, uint8, shape (H, W).
        red: Chroma Cr, likewise.

    Returns:
        Whether each cell is coloured, shape (rows, columns).
    """
    shorter = min(blue.shape)
    side = max(1, shorter // (_CELLS if shorter <= _SMALL else _CELLS_OF_SCREEN))
    rows, columns = blue.shape[0] // side, blue.shape[1] // side
    # Wrapping around at 0 puts levels that are too low above those that are too high.
    coloured = np.maximum(blue - _LOWEST_NEUTRAL, red - _LOWEST_NEUTRAL) > 2 * _CHROMA
    if not coloured.any():
        return np.zeros((rows, columns), dtype=bool)
    return coloured[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3)) >= _FULL


def largest_share(cells: NDArray[np.bool_], area: NDArray[np.bool_] | None = None) -> float:
    """Find the largest share of a frame that is covered by coloured areas.

    A cell counts if it belongs to a coloured square whose side is a fourteenth of the shorter side of what is looked
    at, and two cells at least: lines and letters form none.

    Args:
        cells: Coloured cells of some frames, shape (K, rows, columns).
        area: Cells that are looked at, shape (rows, columns); `None` for all.

    Returns:
        Share of the cells that are looked at.
    """
    area = np.ones(cells.shape[1:], dtype=bool) if area is None else area
    shorter = min(int(area.any(axis=axis).sum()) for axis in (0, 1))
    side = max(2, round(2 * shorter / _CELLS))
    frames = [ndimage.binary_opening(frame & area, np.ones((side, side))) for frame in cells if (frame & area).any()]
    return max((float(frame.sum() / area.sum()) for frame in frames), default=0.0)


def cell_middles(cells: tuple[int, ...], size: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Rows and columns, in pixels, of the middles of (rows, columns) cells of a picture of this height and width."""
    return [(np.arange(count) + 0.5) * length / count for count, length in zip(cells, size, strict=True)]


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
