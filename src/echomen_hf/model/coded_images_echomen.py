"""Compressed images inside DICOM files: where they are, and what they say of themselves."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np


__all__ = ["CODESTREAM_START", "ITEM", "JPEG_START", "adobe_transform", "coded_size", "encapsulated_items"]

ITEM = b"\xfe\xff\x00\xe0"
JPEG_START, CODESTREAM_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7, 0xDE} - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are none


def encapsulated_items(data: bytes) -> tuple[list[bytes], list[int]]:
    """Whole fragments of encapsulated pixel data, and the offsets of frames among them; both as far as they go."""
    items, place = [], 0
    while data[place : place + 4] == ITEM:
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + size > len(data):
            break
        items.append(data[place + 8 : place + 8 + size])
        place += 8 + size
    table = items[0] if items else b""
    return items[1:], np.frombuffer(table[: len(table) // 4 * 4], "<u4").tolist()


def _segments(image: bytes) -> Sequence[tuple[int, bytes]]:
    """Markers of a JPEG image before its first scan, with what follows each."""
    found, place = [], 2
    while place + 4 <= len(image) and image[place] == 0xFF and image[place + 1] != 0xDA:
        if image[place + 1] == 0xFF:  # padding
            place += 1
            continue
        size = int.from_bytes(image[place + 2 : place + 4], "big")
        found.append((image[place + 1], image[place + 4 : place + 2 + size]))
        place += 2 + size
    return found


def coded_size(image: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 image has by itself, the largest it states."""
    if image.startswith(JPEG_START):
        bodies = [body for marker, body in _segments(image) if marker in _START_OF_FRAME]
        sizes = [struct.unpack_from(">2H", body, 1) for body in bodies if len(body) >= 5]
        return max(sizes, default=None)
    place = image.find(CODESTREAM_START)
    if place < 0 or len(image) < place + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", image, place + 8)
    return bottom - top, right - left


def adobe_transform(image: bytes) -> int | None:
    """Whether a JPEG image says that its colours were converted to YCbCr."""
    if not image.startswith(JPEG_START):
        return None
    marks = (body for marker, body in _segments(image) if marker == 0xEE and body.startswith(b"Adobe"))
    return next((body[11] for body in marks if len(body) > 11), None)
