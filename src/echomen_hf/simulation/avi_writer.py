"""Grayscale MJPEG video in AVI files, the format of EchoNet-Dynamic."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np

from ..runs.files import replacing


__all__ = ["write_avi"]


def write_avi(path: str | os.PathLike[str], frames: np.ndarray, fps: float) -> None:
    """Write a grayscale video as MJPEG in AVI, the format of EchoNet-Dynamic.

    Args:
        path: File to write; a file that is there is replaced once the new one is complete.
        frames: `(frames, height, width)` uint8 array with even height and width.
        fps: Frames per second, rounded to 1/1000.

    Raises:
        ValueError: If `frames` is not such an array.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(
            f"{path}: frames must be a uint8 array (frames, height, width) with even height and width, "
            f"got {frames.dtype} {frames.shape}"
        )
    _, height, width = frames.shape
    neutral_chroma = np.full(height * width // 2, 128, dtype=np.uint8)
    with replacing(path) as partial, av.open(str(partial), "w", format="avi") as container:
        # a fixed quantiser keeps the corners black and the bytes the same on every run
        stream = container.add_stream(
            "mjpeg", rate=Fraction(fps).limit_denominator(1000), options={"qmin": "2", "qmax": "2"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            planes = np.concatenate([image.ravel(), neutral_chroma]).reshape(height * 3 // 2, width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuvj420p")))
        container.mux(stream.encode(None))
