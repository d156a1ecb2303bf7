"""Where the fan lies in a simulated clip, and clips that show all of it, as a machine's screen does."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull

from .echo import EchoParameters
from .export_screens import Box
from .image_formation import SectorGeometry


__all__ = ["bounding_box", "fan_mask", "lit_fan", "whole_fan_parameters"]

_LIT = 10  # gray level that a pixel must exceed once to count as lit, above the noise of JPEG
_REFERENCE_SIZE = 112  # image size in pixels at which the pixel-valued parameters hold


def fan_mask(parameters: EchoParameters, image_size: int) -> np.ndarray:
    """Find the pixels of the fan of a simulated clip.

    Args:
        parameters: Parameters of the clip.
        image_size: Height and width in pixels.

    Returns:
        `(image_size, image_size)` boolean mask.
    """
    geometry = SectorGeometry(parameters.imaging, image_size, parameters.depth)
    depth, sine = geometry.polar_of_pixels()
    inside = (depth <= parameters.depth) & (depth >= parameters.imaging.probe_radius)
    return inside & (np.abs(sine) <= math.sin(geometry.half_angle))


def lit_fan(frames: np.ndarray) -> np.ndarray:
    """Find the fan of a clip that shows little else.

    Args:
        frames: Frames, uint8, `(T, H, W)`.

    Returns:
        The convex hull of what is ever lit and has lit neighbours, bool, `(H, W)`.
    """
    lit = frames.max(axis=0) > _LIT
    # a lone mark outside the fan has few lit neighbours
    rows, columns = np.nonzero(lit & (gaussian_filter(lit.astype(np.float32), 2) > 0.4))
    mask = np.zeros(lit.shape, dtype=bool)
    if len(rows) < 3 or np.ptp(rows) == 0 or np.ptp(columns) == 0:
        return mask
    points = np.stack([columns, rows], axis=1)
    image = Image.new("1", lit.shape[::-1])
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in points[ConvexHull(points).vertices]], fill=1)
    return np.asarray(image)


def bounding_box(mask: np.ndarray) -> Box:
    """Box of the pixels of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def whole_fan_parameters(parameters: EchoParameters, height: int = 112) -> tuple[EchoParameters, int, Box]:
    """Change where a simulated fan lies in its image, so that all of it is inside, and remove what lies around it.

    Square clips cut off the corners of the fan. The heart and the machine stay as they are.

    Args:
        parameters: Parameters of a clip.
        height: Height of the fan in pixels.

    Returns:
        The changed parameters, the image size to simulate at, and the square around the fan in that image (left, top,
        right, bottom), in which it fills the height: the clip as a data set would have it.
    """
    imaging, half_angle = parameters.imaging, math.radians(parameters.imaging.sector_half_angle)
    # a tip that is cut off along an arc begins at the sides
    cut = max(imaging.probe_radius, 0.0) / parameters.depth * math.cos(half_angle)
    radius = height / (1 - cut)
    margin = 2
    size = 2 * math.ceil(max(radius * math.sin(half_angle) + margin, radius / 2 + margin))
    apex = (size / 2 - 0.5, margin - 0.5)
    unit = _REFERENCE_SIZE / size
    changed = dataclasses.replace(
        imaging,
        apex_column=apex[0] * unit,
        apex_row=apex[1] * unit,
        bottom_row=(apex[1] + radius) * unit,
        axial_resolution=imaging.axial_resolution * unit,
        marks=0.0,
    )
    display = dataclasses.replace(
        parameters.display, blur=parameters.display.blur * unit, contour_mask=1.0, ecg=0.0, ticks=0.0
    )
    left, top = (size - height) // 2, round(margin + cut * radius)
    square = (left, top, left + height, top + height)
    return dataclasses.replace(parameters, imaging=changed, display=display), size, square
