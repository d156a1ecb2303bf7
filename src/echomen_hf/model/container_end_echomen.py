"""Structure of video files: the end that they should have, and the length of their index."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from .video_source_echomen import ResolvedSource, VideoReadError


__all__ = ["is_cut_off", "require_short_index"]

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MAX_BOXES = 2**16
_MAX_TABLE_BYTES = 2**26
_MAX_INDEX_ENTRIES = 2**20  # 5 hours at 50 frames per second; FFmpeg takes 70 bytes for each
_AUDIO_HANDLERS = {b"soun", b"alis", b"url ", b"rsrc"}  # those of data may stand beside that of sound
_HEAD_BYTES = 2**16


def is_cut_off(source: ResolvedSource) -> bool:
    """Whether an MP4, MKV, WebM, WMV or GIF file ends early; other files do not tell."""
    with source.open() as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_HEAD_BYTES)
        try:
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
                return max((place + size for _, place, size in _boxes(file, length)), default=0) > length
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


def _boxes(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of the boxes at the top of an MP4 file."""
    place = 0
    for _ in range(_MAX_BOXES):
        if length - place < 8:
            break
        file.seek(place)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:  # to the end of the file
            size = length - place
        if size < 8:
            break
        yield header[4:8], place, size
        place += size


def require_short_index(source: ResolvedSource) -> None:
    """Refuse an MP4 file with a very long index, of which a few bytes may stand for millions of entries."""
    with source.open() as file:
        length, num_entries = file.seek(0, os.SEEK_END), 0
        for name, place, size in _boxes(file, length):
            if name not in (b"moov", b"moof"):
                continue
            file.seek(place)
            data = file.read(min(size, _MAX_TABLE_BYTES + 1))
            is_opaque = len(data) > _MAX_TABLE_BYTES or b"cmov" in data  # too long, or compressed
            num_entries += _MAX_INDEX_ENTRIES + 1 if is_opaque else sum(map(_num_entries, data.split(b"trak")))
            if num_entries > _MAX_INDEX_ENTRIES:
                raise VideoReadError.about(
                    source.name,
                    f"has an index of more than {_MAX_INDEX_ENTRIES} entries",
                    "cut the clip to a few heart beats, or export it as AVI",
                )


def _num_entries(track: bytes) -> int:
    """Most entries that the index of a track, or a fragment of it, can have."""
    samples = sum(_counts(track, rb"(?:stsz|stz2).{8}(.{4})"))
    # Samples of sound that last one tick each are put together.
    handlers = set(re.findall(rb"hdlr.{8}(.{4})", track, re.DOTALL))
    if (
        b"soun" in handlers
        and handlers <= _AUDIO_HANDLERS
        and re.search(rb"stts.{7}\x01.{4}\0\0\0\x01", track, re.DOTALL)
    ):
        samples = 0
    return samples * max(1, sum(_counts(track, rb"elst.{4}(.{4})"))) + sum(_counts(track, rb"trun.{4}(.{4})"))


def _counts(data: bytes, pattern: bytes) -> list[int]:
    return [int.from_bytes(count, "big") for count in re.findall(pattern, data, re.DOTALL)]


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
