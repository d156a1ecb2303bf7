"""Image statistics of simulated clips beside those of real ones."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, gaussian_filter

from echomen_hf.simulation.echo import SimulatedEcho


__all__ = ["REAL_RANGES", "RealRange", "cavity_mask", "measure_realism"]

_LIT = 10  # grey level that a pixel must exceed once to count as lit, above the noise of MJPEG
_LAGS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class RealRange:
    """Mean and range of one statistic over nine real clips (EchoNet-Dynamic's public examples).

    Args:
        mean: Mean over the clips; `None` where only the range is known.
        low: Smallest value; `None` where only the mean is known.
        high: Largest value; `None` where only the mean is known.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None


REAL_RANGES: dict[str, RealRange] = {
    "lit share": RealRange(0.62, 0.48, 0.71),
    "mean": RealRange(32, 20, 46),
    "standard deviation": RealRange(50, 44, 68),
    "sector 1 %": RealRange(0),
    "sector 5 %": RealRange(1),
    "sector 10 %": RealRange(2),
    "sector 25 %": RealRange(6, 3, 9),
    "sector 50 %": RealRange(30, 15, 58),
    "sector 75 %": RealRange(79),
    "sector 90 %": RealRange(136),
    "sector 95 %": RealRange(166),
    "sector 99 %": RealRange(213, 193, 251),
    "mean inside cavity": RealRange(18, 6, 30),
    "mean in ring": RealRange(72, 40, 104),
    "LV area, largest": RealRange(None, 0.04, 0.19),
    "LV area, smallest": RealRange(None, 0.04, 0.19),
    "LV rows": RealRange(None, 36, 64),
    "LV columns": RealRange(None, 20, 46),
    "LV centre row": RealRange(None, 42, 62),
    "LV centre column": RealRange(None, 57, 67),
    "horizontal autocorrelation 1": RealRange(0.77),
    "horizontal autocorrelation 2": RealRange(0.47),
    "horizontal autocorrelation 3": RealRange(0.21),
    "horizontal autocorrelation 4": RealRange(0.03),
    "vertical autocorrelation 1": RealRange(0.73),
    "vertical autocorrelation 2": RealRange(0.55),
    "vertical autocorrelation 3": RealRange(0.42),
    "vertical autocorrelation 4": RealRange(0.32),
    "high-pass frame correlation 1": RealRange(0.94, 0.89, 0.97),
    "high-pass frame correlation 2": RealRange(0.85),
    "high-pass frame correlation 4": RealRange(0.70),
    "high-pass frame correlation 8": RealRange(0.53),
    "high-pass frame correlation 16": RealRange(0.39, 0.26, 0.50),
    "raw frame correlation 1": RealRange(0.98),
    "raw frame correlation 2": RealRange(0.94),
    "raw frame correlation 4": RealRange(0.88),
    "raw frame correlation 8": RealRange(0.78),
    "raw frame correlation 16": RealRange(0.68),
}
"""What nine real 112 x 112 clips measure; the ranges that simulated clips are held against."""


def cavity_mask(tracing: np.ndarray, image_size: int) -> np.ndarray:
    """Rasterise the outline that a tracing's chords span.

    Args:
        tracing: `(21, 4)` X1, Y1, X2, Y2 in pixels, long axis first.
        image_size: Height and width in pixels.

    Returns:
        `(image_size, image_size)` boolean mask.
    """
    (apex_x, apex_y, _, _), chords = tracing[0], tracing[1:]
    # the chords lie in the middle of the disks: the basal half disk is added at the width of the last chord
    half_disk = (tracing[0, 2:] - tracing[0, :2]) / (2 * len(chords))
    base = [chords[-1, :2] + half_disk, chords[-1, 2:] + half_disk]
    outline = [(apex_x, apex_y), *chords[:, :2], *base, *chords[::-1, 2:]]
    oversampling = 4
    image = Image.new("1", (image_size * oversampling,) * 2)
    points = [(float((x + 0.5) * oversampling), float((y + 0.5) * oversampling)) for x, y in outline]
    ImageDraw.Draw(image).polygon(points, fill=1)
    fine = np.asarray(image, dtype=np.float32).reshape(image_size, oversampling, image_size, oversampling)
    return fine.mean(axis=(1, 3)) >= 0.5


def measure_realism(echo: SimulatedEcho) -> dict[str, float]:
    """Measure a rendered clip the way the real ones were measured.

    Args:
        echo: A clip with frames; at another image size than 112 pixels, lengths are scaled to 112.

    Returns:
        The statistics named in `REAL_RANGES`.
    """
    frames = echo.frames.astype(np.float32)  # (T, H, W)
    size = frames.shape[1]
    sector = frames.max(axis=0) > _LIT
    values = {
        "lit share": float(sector.mean()),
        "mean": float(frames.mean()),
        "standard deviation": float(frames.std()),
    }
    levels = (1, 5, 10, 25, 50, 75, 90, 95, 99)
    for level, quantile in zip(levels, np.percentile(frames[:, sector], levels), strict=True):
        values[f"sector {level} %"] = float(quantile)
    values.update(_cavity_statistics(echo, frames))

    high_pass = frames - gaussian_filter(frames, (0, 4 * size / 112, 4 * size / 112))
    step = max(len(frames) // 12, 1)
    for axis, direction in ((2, "horizontal"), (1, "vertical")):
        for lag in (1, 2, 3, 4):
            values[f"{direction} autocorrelation {lag}"] = _autocorrelation(high_pass[::step], sector, axis, lag)
    for name, stack in (("high-pass", high_pass), ("raw", frames)):
        pixels = stack[:, sector]  # (T, pixels)
        pixels = pixels - pixels.mean(axis=1, keepdims=True)
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
        for lag in _LAGS:
            values[f"{name} frame correlation {lag}"] = float((pixels[lag:] * pixels[:-lag]).sum(axis=1).mean())
    return values


def _cavity_statistics(echo: SimulatedEcho, frames: np.ndarray) -> dict[str, float]:
    size = frames.shape[1]
    inside, ring, areas = [], [], []
    for tracing, frame in zip(echo.tracings, (echo.end_diastolic_frame, echo.end_systolic_frame), strict=True):
        mask = cavity_mask(tracing, size)
        around = binary_dilation(mask, iterations=5) & ~binary_dilation(mask, iterations=1)
        inside.append(frames[frame][mask].mean())
        ring.append(frames[frame][around].mean())
        areas.append(mask.mean())
    middle = cavity_mask(echo.tracings.mean(axis=0), size)
    rows, columns = (np.flatnonzero(middle.any(axis=axis)) * 112 / size for axis in (1, 0))
    return {
        "mean inside cavity": float(np.mean(inside)),
        "mean in ring": float(np.mean(ring)),
        "LV area, largest": float(max(areas)),
        "LV area, smallest": float(min(areas)),
        "LV rows": float(rows[-1] - rows[0] + 1),
        "LV columns": float(columns[-1] - columns[0] + 1),
        "LV centre row": float((rows[0] + rows[-1]) / 2),
        "LV centre column": float((columns[0] + columns[-1]) / 2),
    }


def _autocorrelation(high_pass: np.ndarray, sector: np.ndarray, axis: int, lag: int) -> float:
    """Correlation of pixels `lag` apart along `axis`, both inside the sector."""
    near = [slice(None)] * 3
    far = [slice(None)] * 3
    near[axis], far[axis] = slice(None, -lag), slice(lag, None)
    both = sector[tuple(near[1:])] & sector[tuple(far[1:])]
    return float(np.corrcoef(high_pass[tuple(near)][:, both].ravel(), high_pass[tuple(far)][:, both].ravel())[0, 1])
