"""Single frames of Motion JPEG in AVI, the form of EchoNet-Dynamic, by the index of the file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from .echo_video_echomen import MAX_FRAME_PIXELS
from .frame_collector_echomen import FrameCollector
from .video_source_echomen import ResolvedSource


try:
    import av
except ImportError:
    av = None

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

__all__ = ["MjpegAvi", "count_held_frames", "decode_from_index", "read_avi_index", "read_images", "states_rate"]

_HEAD_BYTES = 2**12
_MAX_HEADER_BYTES = 2**20
_MAX_CHUNKS = 64  # at the top of a file, where there are a header, some padding, the frames and their index
_MAX_READ_AHEAD = 2**20
_BITMAP_HEADER_BYTES = 40  # more would be settings for the decoder
_INDEX_ENTRY = np.dtype([("name", "S4"), ("flags", "<u4"), ("offset", "<u4"), ("size", "<u4")])


@dataclass(frozen=True)
class MjpegAvi:
    """Place of every frame's JPEG image in an AVI file.

    Args:
        fps: Frames per second.
        height: Rows of a frame.
        width: Columns of a frame.
        name: Name of the chunks that hold frames.
        offsets: Place of every frame's chunk in the file, int64, shape (F,).
        sizes: Bytes of every JPEG image, int64, shape (F,).
    """

    fps: float
    height: int
    width: int
    name: bytes
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.sizes)


def read_avi_index(source: ResolvedSource) -> MjpegAvi | None:
    """Read header and index of an AVI file, and none of its frames.

    `None` for every file that is not a single Motion JPEG stream with a whole index (`idx1`): those are FFmpeg's.
    """
    with source.open() as file:
        try:
            return _parse(file)
        except (struct.error, ValueError, ZeroDivisionError):
            return None


def count_held_frames(source: ResolvedSource) -> int:
    """Number of empty chunks at the end of an AVI file, which hold its last frame."""
    with source.open() as file:
        try:
            chunks = _find_chunks(file)
        except struct.error:
            return 0
    if chunks is None:
        return 0
    filled = np.flatnonzero(chunks[2]["size"])
    return len(chunks[2]) - 1 - int(filled[-1]) if len(filled) else 0


def states_rate(source: ResolvedSource) -> bool:
    """Whether the header of an AVI file has a frame rate; FFmpeg assumes 25 where it has none."""
    with source.open() as file:
        header = file.read(_HEAD_BYTES)
    stream, main = header.find(b"strh"), header.find(b"avih")
    if stream < 0 or main < 0 or len(header) < stream + 36:
        return True
    return all(struct.unpack_from("<2I", header, stream + 28)) or any(struct.unpack_from("<I", header, main + 8))


def _find_chunks(file: BinaryIO) -> tuple[bytes, int, NDArray[Any]] | None:
    """Header, place of the list of frames and index of an AVI file."""
    riff, _, kind = struct.unpack("<4sI4s", file.read(12))
    if (riff, kind) != (b"RIFF", b"AVI "):
        return None
    header, first_place = b"", 0
    for _ in range(_MAX_CHUNKS):
        name, size = struct.unpack("<4sI", file.read(8))
        after = file.tell() + size + size % 2
        if name == b"LIST":
            kind = file.read(4)
            if kind == b"hdrl" and size <= _MAX_HEADER_BYTES:
                header = file.read(size - 4)
            elif kind == b"movi":
                first_place = file.tell() - 4
        elif name == b"idx1":
            break
        file.seek(after)
    else:
        return None
    index = file.read(size)
    return header, first_place, np.frombuffer(index[: len(index) // 16 * 16], _INDEX_ENTRY)


def _parse(file: BinaryIO) -> MjpegAvi | None:
    chunks = _find_chunks(file)
    if chunks is None or not chunks[0] or not chunks[1]:
        return None
    header, first_place, entries = chunks
    stream = _parse_header(header)
    if stream is None:
        return None
    num_frames, fps, height, width = stream
    offsets, sizes = entries["offset"].astype(np.int64), entries["size"].astype(np.int64)
    # A frame of no bytes repeats the one before it; a chunk of another name is a palette, or a list of chunks.
    names = set(entries["name"].tolist())
    if len(entries) != num_frames or num_frames == 0 or not names <= {b"00dc", b"00db"} or len(names) > 1:
        return None
    if not sizes.all():
        return None
    if offsets[0] < first_place:
        offsets += first_place  # most writers count from the list of frames, some from the start of the file
    return MjpegAvi(fps, height, width, names.pop(), offsets, sizes)


def _parse_header(header: bytes) -> tuple[int, float, int, int] | None:
    """Number of frames, frame rate, height and width, if there is one stream and it is Motion JPEG."""
    # A property header may say that pixels are not square.
    if header.count(b"strl") != 1 or b"vprp" in header:
        return None
    stream = header.index(b"strh") + 8
    kind, scale, rate, num_frames = struct.unpack_from("<4s16x2I4xI", header, stream)
    size, width, height, codec = struct.unpack_from("<I4xii4x4s", header, header.index(b"strf", stream) + 4)
    if (kind, codec, size) != (b"vids", b"MJPG", _BITMAP_HEADER_BYTES) or not scale or not rate or height < 0:
        return None
    return num_frames, rate / scale, height, width


def read_images(
    source: ResolvedSource, avi: MjpegAvi, wanted: Collection[int] | None
) -> Iterator[tuple[int, memoryview | None]]:
    """Read the JPEG images of the wanted frames (`None` for all) and nothing else of a file.

    Yields:
        Frame numbers, ascending, each with its image; `None` in the place of one that is not where the index says.
    """
    numbers = sorted(range(avi.num_frames) if wanted is None else wanted)
    offsets, sizes = avi.offsets[numbers].tolist(), avi.sizes[numbers].tolist()
    span = offsets[-1] + 8 + sizes[-1] - offsets[0]
    # One long read is faster than a short one for each of the frames, which lie close together.
    with source.open(read_ahead=span if 0 < span <= _MAX_READ_AHEAD else 0) as file:
        for number, offset, size in zip(numbers, offsets, sizes):
            file.seek(offset)
            chunk = memoryview(file.read(8 + size))
            is_there = len(chunk) == 8 + size and chunk[:4] == avi.name
            yield number, chunk[8:] if is_there and int.from_bytes(chunk[4:8], "little") == size else None


def decode_from_index(
    source: ResolvedSource,
    avi: MjpegAvi,
    collector: FrameCollector,
    to_gray: Callable[[av.VideoFrame, VideoCodecContext, memoryview], NDArray[np.uint8]],
) -> NDArray[np.uint8] | None:
    """Decode the wanted frames and nothing else; `None` if one cannot be decoded by itself."""
    decoder = cast("VideoCodecContext", av.CodecContext.create("mjpeg", "r"))
    decoder.thread_count = 1
    decoder.codec_tag = "MJPG"
    decoder.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    for index, image in read_images(source, avi, collector.wanted):
        if image is None:
            return None
        try:
            decoded = decoder.decode(av.Packet(image))
        except av.FFmpegError:
            return None
        # Each image of an interlaced clip may hold a field, with half of the rows.
        if len(decoded) != 1 or (decoded[0].height, decoded[0].width) != (avi.height, avi.width):
            return None
        collector.add(index, to_gray(decoded[0], decoder, image))
    return collector.finish()
