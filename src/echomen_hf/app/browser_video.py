"""Clips that browsers can play, plain and with the saliency painted over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


__all__ = ["display_size", "overlay_saliency", "resize_for_display", "write_browser_video"]

_SHORT_SIDE = (448, 720)  # EchoNet-Dynamic's 112 pixels are enlarged here, where it is done well, not by the browser
_COLOUR_MAP = "inferno"
_OPACITY = 0.85


def display_size(height: int, width: int) -> tuple[int, int]:
    """Even height and width (H.264 stores colour at half the size) of the same shape in which a clip is shown."""
    short = min(height, width)
    scale = min(max(short, _SHORT_SIDE[0]), _SHORT_SIDE[1]) / short
    rows, columns = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
    return rows, columns


def resize_for_display(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Frames `(height, width)`, uint8, at their `display_size`."""
    for frame in frames:
        yield np.rint(_resize(frame, display_size(*frame.shape)).clip(0, 255)).astype(np.uint8)


def overlay_saliency(
    frames: Iterable[NDArray[np.uint8]], saliency: Iterable[NDArray[np.float32]]
) -> Iterator[NDArray[np.uint8]]:
    """Paint maps between 0 and 1, of any size, over frames `(height, width)`: stronger is brighter and more opaque."""
    strength = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    transparency = 1 - _OPACITY * strength  # (256, 1)
    paint = 255 * _OPACITY * strength * matplotlib.colormaps[_COLOUR_MAP](strength[:, 0])[:, :3]  # (256, 3)
    paint = paint.astype(np.float32)
    for frame, values in zip(frames, saliency):
        level = np.rint(_resize(values, frame.shape).clip(0, 1) * 255).astype(np.uint8)
        yield np.rint(transparency[level] * frame[..., None] + paint[level]).astype(np.uint8)


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


def _resize(image: NDArray[np.generic], size: tuple[int, ...]) -> NDArray[np.float32]:
    pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    return F.interpolate(pixels, size=size, mode="bicubic", align_corners=False, antialias=True)[0, 0].numpy()
