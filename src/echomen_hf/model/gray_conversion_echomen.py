"""Luma of decoded frames, whatever their pixel format and range."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import ColourMeter


try:
    import av
    from av.video.plane import VideoPlane
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None

__all__ = ["GrayConverter"]

_PLANE_ZERO_IS_LUMA = re.compile(r"gray|yuv[aj]?4\d\dp|nv(12|16|21|24|42)")
_PLANES_ARE_CHROMA = re.compile(r"yuv[aj]?4\d\dp")  # planes 1 and 2
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_LIMITED_TO_FULL = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


class GrayConverter:
    """Makes the frames of one clip gray, and measures how much of them is coloured.

    FFmpeg's converter is built once and not for every frame.
    """

    def __init__(self, measure_colour: bool = True) -> None:
        self._colour = ColourMeter() if measure_colour else None
        self._reformatter, self._colour_reformatter = VideoReformatter(), VideoReformatter()

    @property
    def coloured_share(self) -> float:
        """Share of the picture that is coloured, the largest so far; NaN if it is not measured."""
        return float("nan") if self._colour is None else self._colour.share

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Luma on the full 0-255 scale, uint8, shape (height, width); if possible a view of the frame's memory."""
        layout = _layout(frame.format.name)
        if self._colour is not None and layout.has_colour and self._colour.wants_frame():
            planar = frame if layout.has_chroma_planes else self._colour_reformatter.reformat(frame, format="yuv444p")
            self._colour.add(_plane(planar, 1), _plane(planar, 2))
        if not layout.has_luma_plane:
            # `bytes per pixel` and colour differ here: RGB, palettes (GIF), more than 8 bits.
            return _plane(self._reformatter.reformat(frame, format="gray"), 0)
        luma = _plane(frame, 0)
        return luma if layout.is_full_range or frame.color_range == _FULL_RANGE else _LIMITED_TO_FULL[luma]


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
