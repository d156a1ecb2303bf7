"""Ultrasound region of a DICOM image, and shape and size of its pixels."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import cell_middles
from .dicom_header_echomen import number, numbers_of
from .gray_conversion_echomen import usable_aspect, usable_pixel_size


if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Crop", "find_crop", "mm_per_pixel"]

_SIDES_AGREE = 0.05
_TWO_DIMENSIONAL, _TISSUE = 1, 1  # RegionSpatialFormat and RegionDataType, DICOM PS3.3 C.8.5.5
_CENTIMETRES = 3  # of PhysicalUnitsXDirection and PhysicalUnitsYDirection
_INSIDE_SHARE = 0.5  # of the region; with less inside the image, the coordinates belong to another size of it
_SMALLEST_REGION = 0.05  # of the image area


@dataclass(frozen=True)
class PictureBox:
    """Pixel rectangle, half-open."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def covered(self, cells: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Which of the (rows, columns) cells of a picture of this height and width lie inside, by their middle."""
        row, column = cell_middles(cells, size)
        return np.outer((row >= self.top) & (row < self.bottom), (column >= self.left) & (column < self.right))

    def shrunk(self, margin: float) -> PictureBox:
        rows, columns = round(margin * self.height), round(margin * self.width)
        return PictureBox(self.top + rows, self.bottom - rows, self.left + columns, self.right - columns)

    def central_square(self, aspect: float) -> PictureBox:
        height, width = min(self.height, round(self.width * aspect)), min(self.width, round(self.height / aspect))
        top, left = self.top + (self.height - height) // 2, self.left + (self.width - width) // 2
        return PictureBox(top, top + height, left, left + width)

    def with_square_pixels(self, aspect: float) -> PictureBox:
        """The same part of a frame that `square_pixels` has enlarged."""
        down, across = max(1 / aspect, 1), max(aspect, 1)
        top, left = math.floor(self.top * down), math.floor(self.left * across)
        return PictureBox(top, top + round(self.height * down), left, left + round(self.width * across))


class Crop(NamedTuple):
    """What to keep of a frame.

    Args:
        box: Its place.
        region: Place of the region that the file names.
        header: All that the file says of this region.
        aspect: Width of a pixel over its height.
    """

    box: PictureBox
    region: PictureBox | None
    header: Dataset | None
    aspect: float


def find_crop(
    dataset: Dataset, size: tuple[int, int], name: str, crop_region: bool, margin: float, square: bool
) -> Crop:
    """Settle what `read_dicom` keeps of frames of a size, rows and columns."""
    rows, columns = size
    region, header = _tissue_region(dataset, rows, columns, name, warn=crop_region)
    aspect = _pixel_aspect(dataset, header)
    box = region if region and crop_region else PictureBox(0, rows, 0, columns).shrunk(margin)
    return Crop(box.central_square(aspect) if square else box, region, header, aspect)


def _tissue_region(
    dataset: Dataset, rows: int, columns: int, name: str, warn: bool
) -> tuple[PictureBox | None, Dataset | None]:
    """Largest usable two-dimensional tissue region: its place, clipped to the image, and what is said of it."""
    tissue = [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if number(region, "RegionSpatialFormat") == _TWO_DIMENSIONAL and number(region, "RegionDataType") == _TISSUE
    ]
    usable = []
    for region in tissue:
        corners = [number(region, f"RegionLocation{corner}") for corner in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        box = _clip_region(corners, rows, columns)
        if box is not None:
            usable.append((box, region))
    if warn and tissue and not usable:
        warnings.warn(f"{name}: its ultrasound region does not fit its image; ignoring the region.", stacklevel=2)
    return max(usable, key=lambda found: found[0].height * found[0].width, default=(None, None))


def _clip_region(corners: list[float | None], rows: int, columns: int) -> PictureBox | None:
    if any(corner is None for corner in corners):
        return None
    top, bottom, left, right = (int(corner) for corner in corners if corner is not None)  # inclusive
    if top > bottom or left > right:
        return None
    box = PictureBox(max(top, 0), min(bottom + 1, rows), max(left, 0), min(right + 1, columns))
    inside = max(box.height, 0) * max(box.width, 0)
    mostly_inside = inside >= _INSIDE_SHARE * (bottom + 1 - top) * (right + 1 - left)
    return box if mostly_inside and inside >= _SMALLEST_REGION * rows * columns else None


def _pixel_aspect(dataset: Dataset, region: Dataset | None) -> float:
    """Width of a pixel over its height; the file states height first."""
    for keyword in ("PixelAspectRatio", "PixelSpacing"):
        sides = numbers_of(dataset, keyword)
        if len(sides) == 2 and (sides > 0).all():
            return usable_aspect(float(sides[1] / sides[0]))
    pixel = _region_pixel(region)
    return usable_aspect(pixel[0] / pixel[1]) if pixel else 1.0


def _region_pixel(region: Dataset | None) -> tuple[float, float] | None:
    """Width and height in mm of a pixel of a region."""
    if region is None:
        return None
    units = [number(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
    width, height = (10 * abs(number(region, f"PhysicalDelta{axis}") or 0) for axis in "XY")
    return (width, height) if units == [_CENTIMETRES] * 2 and width and height else None


def mm_per_pixel(dataset: Dataset, region: Dataset | None, aspect: float) -> float | None:
    """Side of a pixel in mm once it is square, which is its shorter side now, if the file states that."""
    sides = _region_pixel(region) or numbers_of(dataset, "PixelSpacing")[::-1].tolist()
    if len(sides) != 2 or not min(sides) > 0 or abs(sides[0] / sides[1] / aspect - 1) > _SIDES_AGREE:
        return None
    return usable_pixel_size(min(sides))
