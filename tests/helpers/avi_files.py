"""AVI files written byte by byte: what capture cards and old programs make and FFmpeg does not."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def jpeg(frame: NDArray[np.uint8], **options: object) -> bytes:
    """A JPEG image of high quality."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def write_avi(
    path: Path,
    images: Sequence[bytes],
    size: tuple[int, int],
    fourcc: bytes = b"MJPG",
    bits: int = 24,
    rate: int = 50,
    period: int = 20000,
    palette: bytes = b"",
) -> Path:
    """One video stream of a height and width, with an index; an image of no bytes is an empty chunk."""
    height, width = size
    count = len(images)
    main = struct.pack("<14I", period, 0, 0, 0x10, count, 0, 1, 0, width, height, 0, 0, 0, 0)
    kind = fourcc if any(fourcc) else b"DIB "
    numbers = (0, 0, 0, 0, 1, rate, 0, count, 0, 2**32 - 1, 0, 0, 0, width, height)
    stream = b"vids" + kind + struct.pack("<IHH8I4h", *numbers)
    bitmap = struct.pack("<I2i2H4sI2i2I", 40, width, height, 1, bits, fourcc, 0, 0, 0, len(palette) // 4, 0) + palette
    header = _chunk(b"avih", main) + _group(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", bitmap))
    frames, index = b"", b""
    for image in images:
        index += struct.pack("<4s3I", b"00dc", 0x10, 4 + len(frames), len(image))
        frames += _chunk(b"00dc", image)
    body = b"AVI " + _group(b"hdrl", header) + _group(b"movi", frames) + _chunk(b"idx1", index)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _group(name: bytes, data: bytes) -> bytes:
    return b"LIST" + struct.pack("<I", len(data) + 4) + name + data
