"""Region of a screen in which the ultrasound fan must lie, from what keeps moving there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


__all__ = ["Box", "areas_of", "changes", "find_moving_region", "opened", "quiet_level"]

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first column and row outside."""

_MOVING_SHARE = 0.3  # of the changes from sample to sample; a trace or a letter passes a pixel less often
_WIDEST = 1.6  # width of a fan over its height
_FOUR_NEIGHBOURS = ndimage.generate_binary_structure(2, 1)  # `ndimage.label` would make it each time


def changes(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Absolute change from sample to sample."""
    change = np.maximum(samples[1:], samples[:-1])
    change -= np.minimum(samples[1:], samples[:-1])
    return change


def quiet_level(change: NDArray[np.uint8]) -> int:
    """Gray levels by which noise and compression change what stands still: in the quietest fifth of the picture."""
    below = np.cumsum(np.bincount(change.sum(axis=0, dtype=np.uint16).ravel()))
    return 1 + round(2 * int(np.searchsorted(below, below[-1] / 5)) / len(change))


def opened(mask: NDArray[np.bool_], times: int = 1) -> NDArray[np.bool_]:
    """Parts of a mask that are at least `2 * times + 1` cells wide and high."""
    return ~_eroded(~_eroded(mask, times), times)


def find_moving_region(
    change: NDArray[np.uint8], level: int, step: int, size: tuple[int, int], hint: Box | None
) -> Box | None:
    """Part of a picture (width, height) around the largest area of every `step`-th pixel that keeps moving."""
    is_moving = (change > level).sum(axis=0, dtype=np.uint8) >= _MOVING_SHARE * len(change)
    found = _largest_area(is_moving, step, hint)
    return None if found is None else _region_around(*found, step, size)


def _eroded(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Cells of a mask whose eight neighbours belong to it too, as often as told."""
    for _ in range(times):
        mask = mask.copy()
        mask[1:-1] = mask[1:-1] & mask[:-2] & mask[2:]
        mask[:, 1:-1] = mask[:, 1:-1] & mask[:, :-2] & mask[:, 2:]
    return mask


def _largest_area(moving: NDArray[np.bool_], step: int, hint: Box | None) -> tuple[Box, list[Box]] | None:
    """Box of the largest moving area in pixels, and those of areas beside it that belong to other panels."""
    solid = np.zeros((moving.shape[0] + 8, moving.shape[1] + 8), dtype=bool)  # faster than `np.pad`
    solid[4:-4, 4:-4] = moving
    solid[1:-1] |= solid[:-2] | solid[2:]  # closed upwards only, for two panels may stand close to each other
    solid[1:-1] &= solid[:-2] & solid[2:]
    solid[:, 1:-1] |= solid[:, :-2] & solid[:, 2:]
    solid = opened(solid, 2)[4:-4, 4:-4]
    labels, places = areas_of(solid)
    if _divide_panels(solid, labels, places):
        labels, places = areas_of(solid)
    if not places:
        return None
    sizes = np.bincount(labels.ravel(), minlength=len(places) + 1)[1:]
    largest = np.argsort(-sizes)[:9]
    pieces: list[Box] = [
        (columns.start * step, rows.start * step, columns.stop * step, rows.stop * step)
        for rows, columns in (places[number] for number in largest)
    ]
    # each with what moves above or below something dark in the same fan
    areas = [pieces[n] for n in range(len(pieces)) if sizes[largest[n]] > 0.3 * sizes.max()]
    for number, area in enumerate(areas):
        for box in pieces:
            if _gap(box, area) < -2 * step and _is_near(box, area):
                area = areas[number] = _joined(area, box)
    # heights, because flow moves more of a fan than tissue alone; of two equal panels the plain one stands left
    heights = np.array([area[3] - area[1] for area in areas], dtype=float)
    if hint is not None:
        left, top, right, bottom = (2 * edge for edge in hint)
        heights *= [
            1.3 if left <= box[0] + box[2] < right and top <= box[1] + box[3] < bottom else 1.0 for box in areas
        ]
    tallest = itertools.compress(areas, heights > 0.95 * heights.max())
    area = min(tallest, key=lambda area: area[0])
    pieces = [box for box in pieces if _joined(box, area) != area]
    others: list[Box] = []
    is_tall = [box[3] - box[1] > 0.3 * (area[3] - area[1]) for box in pieces]
    for box in sorted(itertools.compress(pieces, is_tall), key=lambda box: _gap(box, area)):
        whole = _joined(box, area)
        if _gap(box, area) >= -2 * step and whole[2] - whole[0] > _WIDEST * (whole[3] - whole[1]):
            others.append(box)
        elif _is_near(box, area):  # beside something dark
            area = whole
    for box in pieces:
        if _is_near(box, area) and box not in others and all(_gap(box, area) < _gap(box, other) for other in others):
            area = _joined(area, box)
    return area, others


def areas_of(solid: NDArray[np.bool_]) -> tuple[NDArray[Any], list[tuple[slice, slice]]]:
    """Number the areas of a mask from 1, and give the rows and columns of each."""
    labels, _ = ndimage.label(solid, _FOUR_NEIGHBOURS)
    return labels, ndimage.find_objects(labels)


def _divide_panels(solid: NDArray[np.bool_], labels: NDArray[Any], places: list[tuple[slice, slice]]) -> bool:
    """Cut areas that are too wide for one fan where two touch, at the lowest column near the middle; `True` if any."""
    is_cut = False
    for number, (rows, columns) in enumerate(places, 1):
        piece = labels[rows, columns] == number
        width = piece.shape[1]
        if width <= _WIDEST * piece.shape[0]:
            continue
        heights = piece.sum(axis=0)
        cut = width // 4 + int(heights[width // 4 : width - width // 4].argmin())
        if heights[cut] < 0.5 * heights.max():
            solid[rows, columns.start + cut] &= ~piece[:, cut]
            is_cut = True
    return is_cut


def _is_near(box: Box, area: Box) -> bool:
    margin = 0.2 * (area[3] - area[1])
    return box[3] > area[1] - margin and box[1] < area[3] + margin


def _joined(first: Box, second: Box) -> Box:
    left, top = min(first[0], second[0]), min(first[1], second[1])
    return (left, top, max(first[2], second[2]), max(first[3], second[3]))


def _gap(first: Box, second: Box) -> int:
    """Columns between two boxes, negative if they share some."""
    return max(first[0] - second[2], second[0] - first[2])


def _region_around(area: Box, others: list[Box], step: int, size: tuple[int, int]) -> Box:
    """Part of the picture in which the whole fan must lie, without the panels beside it."""
    left, top, right, bottom = area
    margin = round(0.18 * (bottom - top)) + 2 * step
    low, high = max(left - margin, 0), min(right + margin, size[0])
    for other in others:
        if other[0] >= right - 2 * step:
            high = min(high, (other[0] + right) // 2 + 1)
        else:
            low = max(low, (other[2] + left) // 2)
    return (low, max(top - 2 * margin, 0), high, min(bottom + 3 * margin // 2, size[1]))
