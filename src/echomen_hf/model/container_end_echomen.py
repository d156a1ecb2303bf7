"""The end that a video file has by its own structure: a file that ends before it was cut off."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from .video_source_echomen import ResolvedSource


__all__ = ["is_cut_off"]

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MAX_BOXES = 2**16
_HEAD_BYTES = 2**16


def is_cut_off(source: ResolvedSource) -> bool:
    """Whether an MP4, MKV, WebM, WMV or GIF file ends early; other files do not tell."""
    with source.open() as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        try:
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
                return _boxes_end(file, length) > length
            if head.startswith(_EBML):
                return _segment_end(head) > length
            if head.startswith(_ASF_HEADER):
                return struct.unpack_from("<Q", head, head.index(_ASF_FILE_PROPERTIES) + 40)[0] > length
            if head.startswith(b"GIF8"):
                file.seek(max(0, length - 64))
                return not file.read().rstrip(b"\0").endswith(b";")
        except (struct.error, ValueError, IndexError):
            return False
    return False


def _boxes_end(file: BinaryIO, length: int) -> int:
    """End of the last box of an MP4 file."""
    place = 0
    for _ in range(_MAX_BOXES):
        if length - place < 8:
            break
        file.seek(place)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # 0: to the end of the file
            break
        place += size
    return place


def _segment_end(head: bytes) -> int:
    """End of the segment of a Matroska file; 0 if it is not known."""
    size, place = _vint(head, len(_EBML))
    place += size
    if head[place : place + 4] != _SEGMENT:
        return 0
    width = 9 - head[place + 4].bit_length()
    size, place = _vint(head, place + 4)
    return 0 if size == 2 ** (7 * width) - 1 else place + size


def _vint(head: bytes, place: int) -> tuple[int, int]:
    """Value of an EBML number, and the place after it."""
    width = 9 - head[place].bit_length()
    value = int.from_bytes(head[place : place + width], "big") & (2 ** (7 * width) - 1)
    return value, place + width
