"""Clips that browsers can play."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image


__all__ = ["display_size", "resize_for_display", "resize_image", "write_browser_video"]

_SHORT_SIDE = (448, 720)  # EchoNet-Dynamic's 112 pixels are enlarged here, where it is done well, not by the browser
_LONG_SIDE = 1920  # a clip of 8192 x 8 pixels must not become a thousand times larger


def display_size(height: int, width: int) -> tuple[int, int]:
    """Even height and width (H.264 stores colour at half the size) of the same shape in which a clip is shown."""
    short = min(height, width)
    scale = min(min(max(short, _SHORT_SIDE[0]), _SHORT_SIDE[1]) / short, _LONG_SIDE / max(height, width))
    rows, columns = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    return rows, columns


def resize_for_display(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Frames `(height, width)`, uint8, at their `display_size`."""
    for frame in frames:
        yield resize_image(frame, display_size(*frame.shape))


def write_browser_video(path: str | Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Write H.264 in MP4 of gray `(height, width)` or RGB `(height, width, 3)` frames of even size."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "20", "preset": "superfast"}
        )
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for position, image in enumerate(frames):
            if position == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="gray" if image.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def resize_image(image: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Resize an image `(height, width)`, uint8 or float32, to a height and width."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
