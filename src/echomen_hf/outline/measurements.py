"""Volumes of the left ventricle from its outline: long axis and disks of every frame, and a smooth curve over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..simulation.anatomy import disk_volume


__all__ = ["VolumeMethod", "Volumes", "clean_masks", "measure_volumes", "smooth_volumes", "trace_disks"]

VolumeMethod = Literal["disks", "area_length"]

_NUM_DISKS = 20
_SMALLEST_SHARE = 0.003  # of the picture; ventricles of real clips have 4 to 19 % of one that shows the fan alone
_ENOUGH_PIXELS = 160  # extent of the area in which ventricles lie; finer masks are measured on every n-th pixel
_LONGEST_GAP = 0.1  # seconds without a mask that the curve bridges
_SMOOTHING = 0.14  # seconds
_OUTLIER = 0.15  # of the usual volume


@dataclass(frozen=True)
class Volumes:
    """Volume of the left ventricle in every frame.

    Args:
        volumes: Volume, float64, shape (T,); NaN where there is no usable mask.
        unit: `"mL"`, or `"1000 px^3"` where nobody knows how large a pixel is.
        is_small: Whether the mask of a frame is missing or too small for a ventricle, shape (T,).
        is_cut: Whether the mask of a frame touches the border of the picture, shape (T,).
        elongation: Length over mean width, shape (T,); NaN where there is no usable mask.
    """

    volumes: NDArray[np.float64]
    unit: str
    is_small: NDArray[np.bool_]
    is_cut: NDArray[np.bool_]
    elongation: NDArray[np.float64]


def clean_masks(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the ventricle of every frame, without islands and holes.

    A frame keeps one piece: the one with the most pixels, each of which counts as much as the share of the frames that
    mark it. An island of a few frames does not outdo the ventricle, however large it is.

    Args:
        masks: Masks, bool, shape (T, H, W).

    Returns:
        Masks of one piece without holes, bool, shape (T, H, W).
    """
    cleaned = np.zeros_like(masks)
    if not masks.any():
        return cleaned
    box = (slice(None), *_bounding_box(masks))
    usual = masks[box].mean(axis=0).ravel()
    for frame, mask in zip(cleaned[box], masks[box]):
        pieces, count = ndimage.label(mask)
        if count:
            largest = 1 + np.bincount(pieces.ravel(), usual)[1:].argmax()
            frame[:] = ndimage.binary_fill_holes(pieces == largest)
    return cleaned


def _bounding_box(masks: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the area in which any frame is marked."""
    (rows,), (columns,) = (np.nonzero(masks.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def trace_disks(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Draw the long axis of a ventricle and the diameters of 20 disks across it, as EchoNet-Dynamic traces them.

    The mitral plane lies between the two lower corners of the mask; the apex is the point of the upper part, where
    apical views have it, that is farthest from its middle. The long axis runs from there through the middle of the
    plane to the end of the mask. A disk is as wide as the area of its part of the mask says, which is more precise
    than its outermost pixels.

    Args:
        mask: Mask of one piece, bool, shape (H, W).

    Returns:
        X1, Y1, X2, Y2 in pixels, float64, shape (21, 4): the axis from apex to base, then the chords from the apex on.
    """
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)  # (N, 2) of x, y
    main = np.linalg.eigh(np.cov(points, rowvar=False))[1][:, 1]
    down = main if main[1] >= 0 else -main
    along, across = points @ down, points @ [-down[1], down[0]]
    middle = (points[np.argmax(along + across)] + points[np.argmax(along - across)]) / 2
    upper = points[along <= along.mean()]
    apex = upper[np.argmax(((upper - middle) ** 2).sum(axis=1))]
    down = (middle - apex) / np.linalg.norm(middle - apex)
    right = np.array([-down[1], down[0]])
    along, across = (points - apex) @ down, (points - apex) @ right
    # A pixel reaches half a pixel beyond its centre.
    start, end = -0.5, along[np.abs(across) <= 0.75].max() + 0.5
    edges = np.linspace(start, end, _NUM_DISKS + 1)
    width, offset = _disk_parts(along - start, across, edges - start)
    middles = apex + np.outer((edges[1:] + edges[:-1]) / 2, down) + np.outer(offset, right)
    halves = np.outer(width / 2, right)
    axis = np.concatenate([apex + start * down, apex + end * down])
    return np.concatenate([axis[None], np.concatenate([middles + halves, middles - halves], axis=1)])


def _disk_parts(
    along: NDArray[np.float64], across: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean width between each two edges, and how far its middle lies beside the axis, (disks,) each."""
    # A pixel is one high and shared between two rows, else disks of few rows would be wide and narrow in turn.
    row = np.floor(along - 0.5).astype(np.int64)
    upper_share = 1 - (along - 0.5 - row)
    rows, shares = np.concatenate([row, row + 1]).clip(0), np.concatenate([upper_share, 1 - upper_share])
    areas = []
    for weights in (shares, shares * np.tile(across, 2)):
        total = np.concatenate([[0.0], np.cumsum(np.bincount(rows, weights))])
        areas.append(np.diff(np.interp(edges, np.arange(len(total)), total)))
    area, moment = areas
    offset = np.divide(moment, area, out=np.zeros_like(area), where=area > 0)
    return area / np.diff(edges), offset


def measure_volumes(
    masks: NDArray[np.bool_], mm_per_pixel: float | None = None, method: VolumeMethod = "disks"
) -> Volumes:
    """Measure the volume of the left ventricle in every frame.

    The method of disks adds up 20 disks across the long axis; the area-length method is 8 A^2 / (3 pi L) with the area
    A and the length L (Lang et al., J Am Soc Echocardiogr 2015).

    Args:
        masks: Masks from `clean_masks`, bool, shape (T, H, W).
        mm_per_pixel: Size of a pixel in mm, if it is known.
        method: `"disks"` or `"area_length"`.

    Returns:
        Volumes and what is wrong with some of them.

    Raises:
        ValueError: If there is no such method.
    """
    if method not in ("disks", "area_length"):
        raise ValueError(f"method must be 'disks' or 'area_length', got {method!r}.")
    num_frames, height, width = masks.shape
    areas = masks.sum(axis=(1, 2))
    is_small = areas < _SMALLEST_SHARE * min(height, width) ** 2
    is_cut = masks[:, [0, -1]].any(axis=(1, 2)) | masks[:, :, [0, -1]].any(axis=(1, 2))
    volumes, elongation = np.full((2, num_frames), np.nan)
    if not is_small.all():
        box = _bounding_box(masks)
        step = max(1, max(part.stop - part.start for part in box) // _ENOUGH_PIXELS)
        scale = step * (mm_per_pixel or 1.0)
        for number in np.flatnonzero(~is_small):
            tracing = trace_disks(masks[number, box[0], box[1]][::step, ::step])
            length = np.linalg.norm(tracing[0, 2:] - tracing[0, :2])
            area = areas[number] / step**2
            elongation[number] = length**2 / area
            if method == "disks":
                volumes[number] = disk_volume(tracing, scale)
            else:
                volumes[number] = 8 * area**2 / (3 * np.pi * length) * scale**3 / 1000
    return Volumes(volumes, "1000 px^3" if mm_per_pixel is None else "mL", is_small, is_cut & ~is_small, elongation)


def smooth_volumes(volumes: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """Take single wrong frames and noise out of a volume curve.

    Short gaps are bridged. A single frame far from both neighbours takes the median of the three. Parabolas over
    0.14 s (Savitzky and Golay, Anal Chem 1964) keep the height of peaks.

    Args:
        volumes: Volume of every frame, NaN where unknown, shape (T,).
        fps: Frames per second.

    Returns:
        Smooth volumes, shape (T,); NaN in gaps of more than 0.1 s.
    """
    from scipy import signal  # takes most of a second, and who looks at a view only does without

    known = np.isfinite(volumes)
    smooth = np.full(len(volumes), np.nan)
    gaps, num_gaps = ndimage.label(~known)
    lengths = np.bincount(gaps, minlength=num_gaps + 1)
    is_bridged = known | (lengths[gaps] <= max(1, _LONGEST_GAP * fps))
    is_bridged[: np.argmax(known)] = False
    is_bridged[len(known) - np.argmax(known[::-1]) :] = False
    filled = np.interp(np.arange(len(volumes)), np.flatnonzero(known), volumes[known]) if known.any() else volumes
    parts, _ = ndimage.label(is_bridged & known.any())
    for part in ndimage.find_objects(parts):
        values = filled[part]
        median = ndimage.median_filter(values, 3, mode="nearest")
        values = np.where(np.abs(values - median) > _OUTLIER * np.median(values), median, values)
        window = min(2 * round(_SMOOTHING * fps / 2) + 1, len(values) - 1 + len(values) % 2)
        smooth[part] = signal.savgol_filter(values, window, 2) if window > 3 else values
    return smooth
