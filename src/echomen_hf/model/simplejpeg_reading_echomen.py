"""Decoding of gray Motion JPEG with simplejpeg (libjpeg-turbo), which leaves out the colour planes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .colour_doppler_echomen import ColourMeter
from .echo_video_echomen import DecodedVideo, require_frame_size
from .frame_collector_echomen import FrameCollector, frames_to_read
from .mjpeg_avi_echomen import read_avi_index, read_images
from .video_source_echomen import ResolvedSource, VideoReadError


__all__ = ["decode_by_simplejpeg", "load_simplejpeg"]

_GRAY_TOLERANCE = 8  # grey levels between the channels of a gray pixel: what compression leaves
_LIMITED_RANGE = b"CS=ITU601"  # FFmpeg's comment on luma from 16 to 235
_COMMENTS_END = 256  # bytes; FFmpeg writes comments first


def load_simplejpeg() -> Any:
    """Import simplejpeg, which is optional; raise `VideoReadError` if that fails."""
    try:
        import simplejpeg
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "simplejpeg"
        raise VideoReadError.about(
            "simplejpeg",
            "is not installed" if missing else f"cannot be loaded ({error})",
            "pip install 'echomen-hf[simplejpeg]', or take decoder=\"pyav\"",
        ) from error
    return simplejpeg


def decode_by_simplejpeg(
    source: ResolvedSource, indices: list[int] | None, max_bytes: int, measure_colour: bool
) -> DecodedVideo | None:
    """Decode the wanted frames of a Motion JPEG file, if it is gray and whole.

    `None` if it has colour that matters, a limited range or fields, or cannot be decoded: all that is PyAV's.
    """
    simplejpeg, avi = load_simplejpeg(), read_avi_index(source)
    if avi is None:
        return None
    require_frame_size(avi.height, avi.width, source.name)
    numbers = frames_to_read(source.name, indices, avi.num_frames)
    collector = FrameCollector(source.name, numbers, max_bytes, avi.num_frames)
    colour = ColourMeter()
    for index, image in read_images(source, avi, collector.wanted):
        if image is None or _is_unusual(bytes(image[:_COMMENTS_END])):
            return None
        try:
            height, width, colour_space, _ = simplejpeg.decode_jpeg_header(image)
        except ValueError:
            return None
        # Each image of an interlaced clip is a field, with half of the rows.
        if (height, width) != (avi.height, avi.width) or colour_space not in ("YCbCr", "Gray"):
            return None
        frame = collector.room(index, (height, width))
        try:
            simplejpeg.decode_jpeg(image, "GRAY", buffer=frame)
            looked_at = measure_colour and colour_space == "YCbCr" and colour.wants_frame()
            if looked_at and not _is_gray(simplejpeg, image, height, width):
                return None
        except ValueError:
            return None
    return DecodedVideo(collector.finish(), avi.fps, colour.cells if measure_colour else None)


def _is_unusual(head: bytes) -> bool:
    """Whether an image has a limited range, is to be turned, or has pixels that are not square."""
    jfif = head.find(b"JFIF\0")
    not_square = jfif >= 0 and head[jfif + 8 : jfif + 10] != head[jfif + 10 : jfif + 12]
    return _LIMITED_RANGE in head or b"Exif" in head or not_square


def _is_gray(simplejpeg: Any, image: memoryview, height: int, width: int) -> bool:
    """Whether colour is nowhere to be seen, at half the size, which is that of the colour planes."""
    pixels = simplejpeg.decode_jpeg(image, "RGB", min_height=height // 2, min_width=width // 2, min_factor=2)
    # One plane after the other: numpy compares neighbours in memory several times faster than every third byte.
    red, green, blue = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))  # each (H, W)
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return bool((high - low).max() <= _GRAY_TOLERANCE)
