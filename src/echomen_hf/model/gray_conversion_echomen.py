"""Luma of decoded frames, whatever their pixel format, range, pixel shape and display matrix."""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .coded_images_echomen import exif_orientation
from .colour_doppler_echomen import ColourMeter


try:
    import av
    from av.sidedata.sidedata import Type as SideDataType
    from av.video.plane import VideoPlane
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None

__all__ = ["GrayConverter", "full_range", "square_pixels", "usable_aspect", "usable_pixel_size"]

_PLANE_ZERO_IS_LUMA = re.compile(r"gray|yuv[aj]?4\d\dp|nv(12|16|21|24|42)")
_PLANES_ARE_CHROMA = re.compile(r"yuv[aj]?4\d\dp")  # planes 1 and 2
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_ASPECT_RANGE = (0.25, 4.0)  # of one pixel; what lies outside is no aspect of a picture
_PIXEL_RANGE = (0.02, 5.0)  # mm
_TURN_BY_DEGREES = {90: (True, False, True), 180: (False, True, True), 270: (True, True, False)}
_TURN_BY_EXIF = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_SQUARE = 0.01  # difference from 1 that is none

_FULL_RANGE_LEVELS = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8).tobytes()


def full_range(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch luma from 16 to 235 to 0 to 255."""
    # Twice as fast as indexing a table.
    return np.frombuffer(luma.tobytes().translate(_FULL_RANGE_LEVELS), np.uint8).reshape(luma.shape)


def usable_aspect(aspect: float) -> float:
    """Width of a pixel over its height as a file states it; 1 if that is close to 1 or cannot be."""
    is_usable = _ASPECT_RANGE[0] <= aspect <= _ASPECT_RANGE[1] and abs(aspect - 1) > _SQUARE
    return aspect if is_usable else 1.0


def usable_pixel_size(millimetres: float) -> float | None:
    """Side of a pixel as a file states it; `None` if no picture of a heart has such pixels."""
    return millimetres if _PIXEL_RANGE[0] <= millimetres <= _PIXEL_RANGE[1] else None


def square_pixels(frame: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """Enlarge a frame (H, W) whose pixels are `aspect` times as wide as high, so that they become square."""
    if aspect == 1:
        return frame
    import torch  # few clips need it, and the processes that read clips start in a tenth of the time without it

    height, width = frame.shape
    size = (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)
    pixels = torch.from_numpy(np.array(frame))[None, None]  # (1, 1, H, W)
    return torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0, 0].numpy()


class GrayConverter:
    """Makes the frames of one clip gray and upright, and measures how much of them is coloured.

    FFmpeg's converter is built once and not for every frame.

    Args:
        measure_colour: Whether to measure colour, which takes time.
    """

    def __init__(self, measure_colour: bool = True) -> None:
        self._colour = ColourMeter() if measure_colour else None
        self._reformatter, self._colour_reformatter = VideoReformatter(), VideoReformatter()
        self._aspect: float | None = None
        self._turn: tuple[bool, bool, bool] | None = None

    @property
    def coloured_cells(self) -> NDArray[np.bool_] | None:
        """Coloured cells of the frames so far, turned as these, (K, rows, columns); `None` if not measured."""
        return None if self._colour is None else self._turned(self._colour.cells)

    def __call__(self, frame: av.VideoFrame, stream: Any = None, image: Any = b"") -> NDArray[np.uint8]:
        """Luma on the full 0-255 scale, uint8, shape (height, width); if possible a view of the frame's memory.

        Args:
            frame: Decoded frame.
            stream: Stream or codec context that states the shape of pixels; `None` leaves frames as they are stored.
            image: What was decoded, in which Motion JPEG says how to turn it.
        """
        if stream is not None and self._aspect is None:
            self._aspect = usable_aspect(float(stream.sample_aspect_ratio or 1))
            self._turn = _display_turn(frame, image)
        luma = self._luma(frame)
        return self._turned(square_pixels(luma, self._aspect or 1))

    def _turned(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Pictures (..., H, W) as they are to be seen."""
        if self._turn is not None:
            transposed, mirrored, upside_down = self._turn
            pictures = pictures.swapaxes(-1, -2) if transposed else pictures
            pictures = pictures[..., ::-1] if mirrored else pictures
            pictures = pictures[..., ::-1, :] if upside_down else pictures
        return pictures

    def _luma(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        layout = _layout(frame.format.name)
        if self._colour is not None and layout.has_colour and self._colour.wants_frame():
            planar = frame if layout.has_chroma_planes else self._colour_reformatter.reformat(frame, format="yuv444p")
            self._colour.add(_plane(planar, 1), _plane(planar, 2))
        if not layout.has_luma_plane:
            # `bytes per pixel` and colour differ here: RGB, palettes (GIF), more than 8 bits.
            return _plane(self._reformatter.reformat(frame, format="gray"), 0)
        luma = _plane(frame, 0)
        return luma if layout.is_full_range or frame.color_range == _FULL_RANGE else full_range(luma)


def _display_turn(frame: av.VideoFrame, image: Any) -> tuple[bool, bool, bool] | None:
    """Whether to swap rows and columns, then mirror, then turn upside down; `None` if nothing is to be done."""
    # Older versions of FFmpeg do not tell what Exif says, and PyAV does not tell what newer ones do.
    if turn := _TURN_BY_EXIF.get(exif_orientation(bytes(image))):
        return turn
    try:
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError:  # PyAV does not know every kind of side data that FFmpeg has
        return _TURN_BY_DEGREES.get(frame.rotation % 360)
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack_from("<5i", bytes(matrix))
    transposed = abs(b) > abs(a)
    turn = (transposed, c < 0, b < 0) if transposed else (False, a < 0, d < 0)
    return turn if any(turn) else None


class _Layout(NamedTuple):
    has_colour: bool
    has_luma_plane: bool
    has_chroma_planes: bool
    is_full_range: bool


@lru_cache
def _layout(pixel_format: str) -> _Layout:
    """Tell from its name what a pixel format holds."""
    return _Layout(
        not pixel_format.startswith("gray"),
        bool(_PLANE_ZERO_IS_LUMA.fullmatch(pixel_format)),
        bool(_PLANES_ARE_CHROMA.fullmatch(pixel_format)),
        pixel_format.startswith(("gray", "yuvj")),
    )


def _plane(frame: av.VideoFrame, number: int) -> NDArray[np.uint8]:
    """One plane without the padding of its rows, as a view."""
    plane = VideoPlane(frame, number)  # `frame.planes` makes all of them
    return np.ndarray((plane.height, plane.width), np.uint8, cast(Any, plane), strides=(plane.line_size, 1))
