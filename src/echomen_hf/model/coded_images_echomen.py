"""Compressed images inside DICOM files: where they are, and what they say of themselves."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np


__all__ = [
    "CODESTREAM_START",
    "ITEM",
    "JPEG_START",
    "FileParts",
    "adobe_transform",
    "coded_size",
    "encapsulated_items",
    "exif_orientation",
    "run_length_decoded_size",
]

ITEM = b"\xfe\xff\x00\xe0"
JPEG_START, CODESTREAM_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7, 0xDE} - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are none
_ORIENTATION = 0x0112
_MAX_ITEMS = 2**17  # a file of frames that are all empty would fill the memory with their places

Part = tuple[int, int]  # place and size in a file


class FileParts(io.RawIOBase):
    """Parts of a file one after the other, as a file of their own that takes no memory."""

    def __init__(self, file: BinaryIO, parts: Sequence[Part]) -> None:
        self._file, self._parts = file, parts
        self._starts = [0, *np.cumsum([size for _, size in parts]).tolist()]
        self._place = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning of the first part."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._starts[-1]}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read what is left of a part, as far as it fits."""
        if not 0 <= self._place < self._starts[-1]:
            return 0
        number = int(np.searchsorted(self._starts, self._place, side="right")) - 1
        inside = self._place - self._starts[number]
        place, size = self._parts[number]
        self._file.seek(place + inside)
        data = self._file.read(min(len(buffer), size - inside))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def encapsulated_items(file: BinaryIO, place: int, end: int) -> tuple[list[Part], list[int]]:
    """Whole fragments of encapsulated pixel data, and the offsets of frames among them; both as far as they go."""
    items: list[Part] = []
    while place + 8 <= end and len(items) <= _MAX_ITEMS:
        file.seek(place)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != ITEM or place + 8 + size > end:
            break
        items.append((place + 8, size))
        place += 8 + size
    table = b""
    if items:
        file.seek(items[0][0])
        table = file.read(min(items[0][1] // 4 * 4, 4 * _MAX_ITEMS))
    return items[1:], np.frombuffer(table, "<u4").tolist()


def run_length_decoded_size(frame: bytes, limit: int) -> int:
    """Bytes of the largest segment of a frame of RLE Lossless after decoding; counting ends above a limit."""
    if len(frame) < 64:
        return 0
    count, *offsets = struct.unpack_from("<16I", frame)
    starts = [*offsets[: min(count, 15)], len(frame)]
    largest = 0
    for place, end in zip(starts, starts[1:]):
        size = 0
        while place < min(end, len(frame)) and size <= limit:
            head = frame[place]
            size += head + 1 if head < 128 else 257 - head if head > 128 else 0
            place += head + 2 if head < 128 else 2 if head > 128 else 1
        largest = max(largest, size)
    return largest


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


def coded_size(image: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components that a JPEG, JPEG-LS or JPEG 2000 image has by itself, the largest it states."""
    if image.startswith(JPEG_START):
        bodies = [body for marker, body in _segments(image) if marker in _START_OF_FRAME]
        sizes = [struct.unpack_from(">2HB", body, 1) for body in bodies if len(body) >= 6]
        return max(sizes, default=None)
    place = _codestream_place(image)
    if len(image) < place + 42 or not image.startswith(CODESTREAM_START, place):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", image, place + 8)
    return bottom - top, right - left, int.from_bytes(image[place + 40 : place + 42], "big")


def _codestream_place(image: bytes) -> int:
    """Place of a JPEG 2000 codestream, which may stand in a JP2 file after other boxes."""
    place = 0
    while not image.startswith(CODESTREAM_START, place) and place + 8 <= len(image):
        size, name = struct.unpack_from(">I4s", image, place)
        if name == b"jp2c":
            return place + (16 if size == 1 else 8)
        if size < 8:
            break
        place += size
    return place


def adobe_transform(image: bytes) -> int | None:
    """Whether a JPEG image says that its colours were converted to YCbCr."""
    if not image.startswith(JPEG_START):
        return None
    marks = (body for marker, body in _segments(image) if marker == 0xEE and body.startswith(b"Adobe"))
    return next((body[11] for body in marks if len(body) > 11), None)


def exif_orientation(image: bytes) -> int:
    """How a JPEG image is to be turned, from 1 (not at all) to 8, by the Exif tag of that name."""
    if not image.startswith(JPEG_START):
        return 1
    bodies = (body[6:] for marker, body in _segments(image) if marker == 0xE1 and body.startswith(b"Exif\0\0"))
    tiff = next(bodies, b"")
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, place)
        entries = (struct.unpack_from(f"{order}2HIH", tiff, place + 2 + 12 * number) for number in range(count))
        orientation = next((value for tag, _, _, value in entries if tag == _ORIENTATION), 1)
    except struct.error:
        return 1
    return orientation if 1 <= orientation <= 8 else 1
