"""Lossy compression of whole screens, as their exports have it."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image


__all__ = ["JPEG_BLOCK", "through_h264", "through_jpeg"]

JPEG_BLOCK = 8
"""Pixels along the side of a block, which is compressed on its own."""

_LARGEST_PICTURE = 65500  # pixels that a side of a JPEG may have
_MOST_PIXELS = 80_000_000  # from 89 million on, Pillow warns of files made to exhaust memory


def through_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Compress frames `(T, H, W)` or `(T, H, W, 3)` as JPEG, many in one tall picture; blocks do not mix frames."""
    count, height = images.shape[:2]
    padded = np.pad(images, ((0, 0), (0, -height % JPEG_BLOCK), *[(0, 0)] * (images.ndim - 2)), mode="edge")
    decoded = np.empty_like(padded)
    per_picture = max(min(_LARGEST_PICTURE, _MOST_PIXELS // images.shape[2]) // padded.shape[1], 1)
    for start in range(0, count, per_picture):
        part = padded[start : start + per_picture]
        file = io.BytesIO()
        picture = Image.fromarray(part.reshape(-1, *part.shape[2:]))
        picture.save(file, "JPEG", quality=quality, subsampling=0)
        decoded[start : start + per_picture] = np.asarray(Image.open(file)).reshape(part.shape)
    return decoded[:, :height]


def through_h264(images: np.ndarray, rate_factor: int) -> np.ndarray:
    """Compress frames `(T, H, W)` or `(T, H, W, 3)` as H.264 video."""
    count, height, width = images.shape[:3]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 50)
    encoder.thread_count = 1
    # With its macroblock tree, x264 does not encode the same frames alike every time.
    encoder.options = {"crf": str(rate_factor), "preset": "veryfast", "x264-params": "threads=1:mbtree=0"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    neutral = np.full(height * width // 2, 128, dtype=np.uint8)
    packets = []
    for number, image in enumerate(images):
        if image.ndim == 3:
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        else:
            planes = np.concatenate([image.ravel(), neutral]).reshape(height * 3 // 2, width)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder.extradata = encoder.extradata
    pictures = [picture for packet in packets for picture in decoder.decode(packet)] + decoder.decode(None)
    decoded = np.empty((count, *images.shape[1:]), dtype=np.uint8)
    for target, picture in zip(decoded, pictures, strict=True):
        target[:] = picture.to_ndarray(format="rgb24") if images.ndim == 4 else picture.to_ndarray()[:height]
    return decoded
