"""Finding of the ultrasound fan on a screen, from what moves there."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import cell_middles
from .moving_region_echomen import Box, areas_of, changes, find_moving_region, opened, quiet_level


__all__ = ["Sector", "common_pixels", "find_sector", "is_data_set_clip", "sector_frames"]

_SAMPLES = 12  # frames that are looked at
_COARSE_CELLS = 12000
_FINE_ROWS = 128
_TRACE_LEVEL = 70  # gray levels; a pixel that is black most of the time and brighter than this at times
_SLOPES = np.tan(np.radians(np.arange(28, 60, 2.0)))  # of the sides of a fan, columns per row
_FINER_SLOPES = np.linspace(-0.04, 0.04, 9)
_USUAL_HALF_ANGLE = 42.0  # degrees
_LOWEST_CONFIDENCE = 0.1
_SMALLEST_HEIGHT = 0.15  # of the picture
_CROPPED_HEIGHT = 0.68  # of a square picture; simulated square clips have fans from 0.78 on
_LARGEST_CLIP = 128  # pixels
_LIT_LEVEL, _LIT_SHARE = 40, 0.015  # around the fan of a square picture; screens have twice as much


@dataclasses.dataclass(frozen=True)
class Sector:
    """Where the ultrasound fan is in the frames of a video.

    Args:
        box: Left, top, right and bottom of the fan in pixels, right and bottom being the first column and row outside;
            all of the picture where no fan was found.
        shape: `"fan"` on a screen, `"cropped"` if the picture is a square that shows little else, or `"none"`.
        confidence: How much what was found looks and moves like a fan, from 0 to 1.
        square: Left, top and side of the square that `crop` cuts out. It has the height of the fan, and may reach
            beyond the picture.
        apex: Column and row where the sides of the fan meet.
        half_angle: Angle between the axis and the sides in radians.
        radius: Distance in pixels from the apex to the lower end.
    """

    box: Box
    shape: Literal["fan", "cropped", "none"] = "none"
    confidence: float = 0.0
    square: tuple[int, int, int] = (0, 0, 0)
    apex: tuple[float, float] = (0.0, 0.0)
    half_angle: float = 0.0
    radius: float = 0.0

    def mask(self) -> NDArray[np.bool_]:
        """Give the pixels of the square that belong to the fan, shape (side, side)."""
        left, top, side = self.square
        row = np.arange(top, top + side, dtype=np.float32)[:, None] + np.float32(0.5 - self.apex[1])
        column = np.arange(left, left + side, dtype=np.float32) + np.float32(0.5 - self.apex[0])
        margin = 1 + 0.006 * self.radius
        mask = row * row + column * column <= (self.radius + margin) ** 2
        mask &= np.abs(column) <= row * math.tan(self.half_angle) + margin / math.cos(self.half_angle)
        mask[:, : max(self.box[0] - left, 0)] = False
        mask[:, max(self.box[2] - left, 0) :] = False
        return mask

    def covered(self, cells: tuple[int, ...], size: tuple[int, ...]) -> NDArray[np.bool_]:
        """Tell which of (rows, columns) cells of a picture of this height and width have their middle in the fan."""
        left, top, side = self.square
        row, column = (middle.astype(int) for middle in cell_middles(cells, size))
        row, column = row - top, column - left
        covered = self.mask()[np.ix_(row.clip(0, side - 1), column.clip(0, side - 1))]
        return covered & np.outer((row >= 0) & (row < side), (column >= 0) & (column < side))

    def crop(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut out the square around the fan, black outside the fan.

        Args:
            frames: Frames of the video, or those of them that are needed, uint8, shape (T, H, W).

        Returns:
            Frames, uint8, shape (T, side, side); `frames` itself unless `shape` is `"fan"`.
        """
        if self.shape != "fan":
            return frames
        side = self.square[2]
        in_picture, in_square = common_pixels(self.square, *frames.shape[1:])
        cropped = np.zeros((len(frames), side, side), dtype=np.uint8)
        mask = self.mask()[in_square[1:]].astype(np.uint8)
        np.multiply(frames[in_picture], mask, out=cropped[in_square])
        return cropped


def common_pixels(
    square: tuple[int, int, int], height: int, width: int
) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
    """Index of what a picture and a square (left, top, side) share, in frames of either."""
    left, top, side = square
    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    return (slice(None), rows, columns), (slice(None), *inner)


def find_sector(frames: NDArray[np.uint8], hint: Box | None = None) -> Sector:
    """Find the ultrasound fan in the frames of a video.

    Speckle moves everywhere inside the fan, while around it text, bars and ticks stand still and a trace or a letter
    moves in thin places. The largest area that keeps moving is found on a coarse grid; sides, apex and lower end of a
    fan are then fitted to all that changes there on a finer one. No fan is what does not widen downwards, what has
    nothing in common from sample to sample (noise), and what has no texture (drawn shapes).

    Args:
        frames: Frames, uint8, shape (T, H, W).
        hint: Box that may hold the fan, such as a region of a DICOM file. It only decides between several fans.

    Returns:
        The fan. A square picture that it fills is `"cropped"`.

    Example:
    ```python
    >>> import numpy as np
    >>> from echomen_hf.model.sector_echomen import find_sector

    >>> frames = np.zeros((60, 112, 112), dtype=np.uint8)
    >>> sector = find_sector(frames)
    >>> sector.shape, sector.crop(frames) is frames
    ('none', True)
    ```
    """
    num_frames, height, width = frames.shape
    nothing = Sector((0, 0, width, height))
    if num_frames < 3 or min(height, width) < 32:
        return nothing
    numbers = sector_frames(num_frames)
    step = math.ceil(math.sqrt(height * width / _COARSE_CELLS))
    samples = _sampled(frames, numbers, (0, 0, width, height), step)
    change = changes(samples)
    level = quiet_level(change)
    region = find_moving_region(change, level, step, (width, height), hint)
    if region is None:
        return nothing
    # of a clip that stays as it is, only whether it shows a fan is asked
    fine_rows = _FINE_ROWS // 2 if is_data_set_clip(height, width) else _FINE_ROWS
    step = max(1, round((region[3] - region[1]) / fine_rows))
    samples = _sampled(frames, numbers, region, step)
    fan = _fitted(samples, level, region, step, (width, height))
    fan_height = 0 if fan is None else fan.box[3] - fan.box[1]
    if fan is None or fan.confidence < _LOWEST_CONFIDENCE or fan_height < _SMALLEST_HEIGHT * height:
        return nothing
    clip = dataclasses.replace(fan, shape="cropped", square=(0, 0, min(height, width)))
    is_filled = abs(width - height) <= 0.02 * height and fan_height >= _CROPPED_HEIGHT * height
    if is_data_set_clip(height, width) or (is_filled and _is_dark_around(clip, frames, numbers)):
        return clip
    return fan


def is_data_set_clip(height: int, width: int) -> bool:
    """Whether a picture is so small a square that it is a clip of a data set, cut to the fan, and no screen."""
    return height == width <= _LARGEST_CLIP


def sector_frames(num_frames: int) -> NDArray[np.int64]:
    """Numbers of the frames, `(K,)`, that `find_sector` looks at: given these alone, it finds the same."""
    count = min(_SAMPLES, num_frames)
    return (np.arange(count) * ((num_frames - 1) / max(count - 1, 1))).round().astype(np.int64)


def _is_dark_around(clip: Sector, frames: NDArray[np.uint8], numbers: NDArray[Any]) -> bool:
    """Whether a square picture shows hardly anything beside its fan: text and traces belong to a screen."""
    side = clip.square[2]
    step = math.ceil(side / _FINE_ROWS)
    samples = _sampled(frames, numbers, (0, 0, side, side), step)
    around = samples[:, ~clip.mask()[::step, ::step]]
    return bool((around > _LIT_LEVEL).mean() < _LIT_SHARE) if around.size else True


def _sampled(frames: NDArray[np.uint8], numbers: NDArray[Any], region: Box, step: int) -> NDArray[np.uint8]:
    """Every `step`-th pixel of a region of some frames, `(samples, h, w)`."""
    left, top, right, bottom = region
    return np.stack([frames[number, top:bottom:step, left:right:step] for number in numbers])


def _fitted(samples: NDArray[np.uint8], level: int, region: Box, step: int, size: tuple[int, int]) -> Sector | None:
    """Fit a fan to what changes in a region. Lengths are cells of `step` pixels; a cell ends at its number +- 0.5."""
    change = changes(samples)
    is_trace = ((samples < 16).sum(axis=0, dtype=np.uint8) >= 0.5 * len(samples)) & (
        samples.max(axis=0) > _TRACE_LEVEL
    )
    ever = (change.max(axis=0) > 2 * level - 1) & ~is_trace
    solid = _opened_to_the_edge(ever)
    _remove_below_largest(solid)
    rows = np.flatnonzero(solid.any(axis=1))
    if len(rows) < 8:
        return None
    first = solid[rows].argmax(axis=1) - 0.5
    last = solid.shape[1] - 0.5 - solid[rows, ::-1].argmax(axis=1)
    upwards = (len(solid) - 1 - rows[::-1], first[::-1], last[::-1])
    fits = _fit_sides(*(np.stack(pair) for pair in zip((rows, first, last), upwards, strict=True)))
    (score, upside_down), (axis, _), (apex, _), (slope, _) = (fit.tolist() for fit in fits)

    row, column = np.arange(solid.shape[0])[:, None] - apex, np.arange(solid.shape[1]) - axis
    distance = np.sqrt(row * row + column * column)
    wedge = np.abs(column) <= row * slope
    radius = _fit_radius(solid & ~is_trace, distance, np.abs(column) <= row * (0.85 * slope))
    fan = wedge & (distance <= radius)
    columns = np.flatnonzero((solid & fan & ~is_trace).sum(axis=0) >= 5)
    if not columns.size:
        return None
    highest, lowest = _fit_top(ever, wedge, apex, -region[1] / step), apex + radius
    half_angle = math.atan(slope)
    extents = (max(axis - columns[0] + 0.5, 0.0), max(columns[-1] + 0.5 - axis, 0.0))
    shares = [
        _cut_share(rows - apex, outer, extent, slope, radius)
        for outer, extent in zip((axis - first, last - axis), extents, strict=True)
    ]
    left_half, right_half = _half_widths(extents, shares, radius * math.sin(half_angle), lowest - highest)
    fan &= (column >= -left_half) & (column <= right_half)
    inside = np.count_nonzero(solid & fan) / max(int(np.count_nonzero(fan)), 1)
    outside = np.count_nonzero(solid & ~fan) / max(int(np.count_nonzero(solid)), 1)
    # one side is enough: the other may be in the shadow of the lung
    width = (rows - apex) * slope
    at_side = (width > 0) & (width < max(left_half, right_half))
    tolerance = max(1.5, 0.04 * (lowest - highest))
    off = np.abs(np.stack([first - axis + width, axis + width - last]))
    support = (off[:, at_side] <= tolerance).sum(axis=1).max() / max(int(np.count_nonzero(at_side)), 0.4 * len(rows))

    likeness = _ramp(score - upside_down, 0.0, 0.15) * _echo_likeness(samples, solid & fan)

    left, middle, right = (region[0] + x * step + 0.5 for x in (axis - left_half, axis, axis + right_half))
    tip, top, bottom = (region[1] + y * step + 0.5 for y in (apex, highest, lowest))
    box = (max(round(left), 0), max(round(top), 0), min(round(right), size[0]), min(round(bottom), size[1]))
    side = box[3] - box[1]
    is_cut_on_both_sides = max(left_half, right_half) < radius * math.sin(half_angle)
    centre = (left + right) / 2 if is_cut_on_both_sides else middle
    return Sector(
        box=box,
        shape="fan",
        confidence=float(inside * (1 - outside) * support * likeness),
        square=(round(centre - side / 2), box[1], side),
        apex=(middle, tip),
        half_angle=half_angle,
        radius=radius * step,
    )


def _opened_to_the_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Open a mask that goes on beyond its edges, faster than by `np.pad`."""
    wider = np.empty((mask.shape[0] + 4, mask.shape[1] + 4), dtype=bool)
    wider[2:-2, 2:-2] = mask
    wider[:2, 2:-2], wider[-2:, 2:-2] = mask[0], mask[-1]
    wider[:, :2], wider[:, -2:] = wider[:, 2:3], wider[:, -3:-2]
    return opened(wider)[2:-2, 2:-2]


def _remove_below_largest(solid: NDArray[np.bool_]) -> None:
    """Remove what moves below a piece that is most of a fan, as the trace of an electrocardiogram does."""
    labels, pieces = areas_of(solid)
    cells = np.bincount(labels.ravel(), minlength=len(pieces) + 1)[1:]
    if len(pieces) < 2 or cells.max() < 0.6 * cells.sum():
        return
    end = pieces[int(cells.argmax())][0].stop
    for number, (rows, columns) in enumerate(pieces, 1):
        if rows.start >= end:
            solid[rows, columns] &= labels[rows, columns] != number


def _echo_likeness(samples: NDArray[np.uint8], area: NDArray[np.bool_]) -> float:
    """From 0 to 1: tissue stays alike from sample to sample, unlike noise, and is hardly flat, unlike drawn shapes."""
    inner = samples.reshape(len(samples), -1)[:, np.flatnonzero(area)[::2]].astype(np.float32)  # (samples, cells)
    inner -= inner.mean(axis=1, keepdims=True)
    inner /= np.sqrt(np.einsum("tc,tc->t", inner, inner))[:, None] + 1e-6
    correlation = float(np.einsum("tc,tc->", inner[1:], inner[:-1])) / (len(inner) - 1)
    middle = samples[len(samples) // 2].astype(np.int16)
    steps = np.abs(middle[1:, 1:] - middle[:-1, 1:]) + np.abs(middle[1:, 1:] - middle[1:, :-1])
    inside = area[1:, 1:]
    flat = int(np.count_nonzero((steps <= 2) & inside)) / max(int(np.count_nonzero(inside)), 1)
    return _ramp(correlation, 0.15, 0.35) * _ramp(-flat, -0.9, -0.6)


def _ramp(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _fit_sides(
    rows: NDArray[Any], first: NDArray[np.float64], last: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit two sides of one slope to the ends of rows, `(fits, rows)`.

    For each fit the points on the sides per row, column and row of the apex, and slope.
    """
    number, count = np.arange(len(rows)), rows.shape[1]
    slopes = np.tile(_SLOPES, (len(rows), 1))
    for _ in range(2):
        # all points of a side have the same sum
        sums = np.stack([first, -last])[:, :, None] + slopes[:, :, None] * rows[:, None]  # (sides, fits, slopes, rows)
        (left, right), scores = _outermost(sums)
        apex = (left + right) / (2 * slopes)
        # a usual fan, whose apex is not far above what moves, needs less support
        penalty = 1.2 * np.maximum(rows[:, :1] - apex - 0.05 * count, 0)
        penalty += 0.006 * count * np.abs(np.degrees(np.arctan(slopes)) - _USUAL_HALF_ANGLE)
        score = (scores.sum(axis=0) - penalty) / count
        best = number, score.argmax(axis=1)
        slope = slopes[best]
        fit = score[best], (left[best] - right[best]) / 2, apex[best], slope
        slopes = slope[:, None] + _FINER_SLOPES * (1 + slope[:, None] ** 2)
    return fit


def _outermost(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Along the last axis the value near which many lie and below which few; and the first less twice the second."""
    tolerance = 1.5
    count = values.shape[-1]
    lines = np.sort(values.reshape(-1, count), axis=1)
    # the lines lie far apart on one axis, so that one search counts in all of them
    number = np.arange(len(lines))
    spaced = (lines + 1e5 * number[:, None]).ravel()
    up_to = np.searchsorted(spaced, spaced + tolerance)
    # a value lies below another one, and not near it, if its neighbours end before that one
    below = np.cumsum(np.bincount(up_to, minlength=len(spaced) + 1)[:-1])
    score = (up_to - 3 * below).reshape(lines.shape) + 2 * count * number[:, None]
    best = score.argmax(axis=1)
    return lines[number, best].reshape(values.shape[:-1]), score[number, best].reshape(values.shape[:-1])


def _fit_radius(solid: NDArray[np.bool_], distance: NDArray[Any], inner: NDArray[np.bool_]) -> float:
    """Distance from the apex at which what moves ends."""
    ring = np.rint(distance[inner]).astype(int)
    if not ring.size:
        return 0.0
    # rings in which more moves than this speak for a larger fan, the others against it: neither a dark ring inside
    # nor a trace below the fan decides
    gain = np.bincount(ring, weights=solid[inner] - 0.15) / np.maximum(np.bincount(ring), 1)
    return float(np.cumsum(gain).argmax())


def _fit_top(moving: NDArray[np.bool_], wedge: NDArray[np.bool_], apex: float, edge: float) -> float:
    """Row at which the fan begins: its apex, or a wide row if the tip is cut off."""
    share = (moving & wedge).sum(axis=1) / np.maximum(wedge.sum(axis=1), 1)
    first = int(np.argmax(share >= 0.1))
    is_cut = 1 < first - 0.5 - apex < 0.13 * len(share) and share[first : first + 5].mean() > 0.5
    return first - 0.5 if is_cut else max(apex, edge - 0.5)


def _half_widths(
    extents: tuple[float, float], cut_shares: list[float], whole: float, height: float
) -> tuple[float, float]:
    """How far a fan reaches left and right of its apex, from what moves, where it seems cut, and its whole width."""
    half = max(extents)
    is_square = [0.46 * height <= extent <= 0.54 * height for extent in extents]
    is_cut = max(cut_shares) >= (0.25 if all(is_square) else 0.75) or sum(cut_shares) >= 1.1
    is_cut |= any(fits and share >= 0.35 for fits, share in zip(is_square, cut_shares, strict=True))
    if half >= 0.95 * whole or half < 0.42 * height or not is_cut:
        return whole, whole  # or dark at the sides
    # where only one side is seen, the other is taken to be like it; the narrowest clips are squares
    half = max(half, 0.49 * height)
    left, right = (
        extent if share >= 0.5 and extent > 0.75 * half else half
        for extent, share in zip(extents, cut_shares, strict=True)
    )
    return left, right


def _cut_share(rows: NDArray[Any], outer: NDArray[Any], extent: float, slope: float, radius: float) -> float:
    """Share of the rows, `rows` below the apex, in which a fan cut off `extent` beside its apex would end there."""
    begin, end = extent / slope + 1, math.sqrt(max(radius**2 - extent**2, 0)) - 1
    if end - begin < 0.06 * radius:
        return 0.0
    at_cut = (rows > begin) & (rows < end)
    return min(float(np.count_nonzero(np.abs(outer[at_cut] - extent) <= 1.5)) / (end - begin), 1.0)
