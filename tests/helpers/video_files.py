"""Writing small videos for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def encode_video(
    path: Path,
    frames: NDArray[np.uint8],
    fps: int | Fraction = 50,
    codec: str = "mjpeg",
    pix_fmt: str = "yuvj420p",
    source_format: str = "gray",
    container: str | None = None,
    **options: str,
) -> Path:
    """Write frames laid out as `source_format`: (T, H, W) for gray, (T, H, W, 3) for rgb24, planes for yuv420p."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.pix_fmt, stream.options = pix_fmt, options
        first = av.VideoFrame.from_ndarray(frames[0], format=source_format)
        stream.width, stream.height = first.width, first.height
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format=source_format)
            output.mux(stream.encode(frame.reformat(format=pix_fmt)))
        output.mux(stream.encode())
    return path


def gray_ramp(num_frames: int, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """Frame t is uniformly 5 t on its left half and 255 - 5 t on its right: shape (num_frames, height, width)."""
    levels = (5 * np.arange(num_frames) % 256).astype(np.uint8)
    frames = np.empty((num_frames, height, width), np.uint8)
    frames[:, :, : width // 2] = levels[:, None, None]
    frames[:, :, width // 2 :] = 255 - levels[:, None, None]
    return frames


def beating_texture(num_frames: int) -> NDArray[np.uint8]:
    """Speckle over a moving pattern, so that every frame and pixel differs: shape (num_frames, 48, 64)."""
    time, rows, columns = np.ogrid[:num_frames, :48, :64]
    noise = np.random.default_rng(0).normal(0, 12, (num_frames, 48, 64))
    pattern = 125 + 90 * np.sin(rows / 6 + time / 5) * np.cos(columns / 9 - time / 7)
    return np.clip(pattern + noise, 0, 255).astype(np.uint8)
