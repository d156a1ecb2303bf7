"""Reading of video files with PyAV: every container and codec that FFmpeg knows.

Decoding a file from its beginning to its end says how many frames it has, and when they are shown. Single frames and
the header are read faster only where that cannot make a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .container_end_echomen import is_cut_off, require_short_index
from .echo_video_echomen import (
    MAX_FRAME_PIXELS,
    DecodedVideo,
    even_rate,
    is_usable_fps,
    require_frame_size,
)
from .frame_collector_echomen import DEFAULT_MAX_BYTES, FrameCollector, frames_to_read
from .gray_conversion_echomen import GrayConverter
from .mjpeg_avi_echomen import count_held_frames, decode_from_index, read_avi_index, states_rate
from .video_source_echomen import ResolvedSource, VideoReadError


try:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
except ImportError:
    av = None

__all__ = ["decode_container", "probe_container"]

# FFmpeg also opens play lists, scripts and text art, which may point at other files or at the network.
_CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,apng,asf,"
    "mpeg,mpegts,mpegvideo,m4v,h264,hevc,mjpeg,flv,ogg,mxf,nut,ivf"
)
_OPTIONS = {"max_pixels": str(MAX_FRAME_PIXELS)}
_WITHOUT_TIME_STAMPS = ("h264", "hevc", "m4v", "mjpeg", "mpegvideo")  # FFmpeg makes them up at 25 frames per second
_AVI, _MOV = "avi", "mov,mp4,m4a,3gp,3g2,mj2"
_STAND_ALONE = ("mjpeg", "png", "jpeg2000", "prores")  # codecs of which every packet is a frame and needs no other
_ONE_FRAME_A_PACKET = (*_STAND_ALONE, "h264", "hevc", "mpeg4", "vp9", "av1", "ffv1", "rawvideo")
_INDEXED_CONTAINERS = (_AVI, _MOV, "matroska,webm")
_SMALLEST_FRAME = 8  # bytes; MPEG-4 in AVI may put two frames into one packet and next to nothing into another


@dataclass
class _Record:
    """What a pass over a file came across."""

    frame_stamps: list[int | None] = field(default_factory=list)
    packet_stamps: list[int | None] = field(default_factory=list)  # without those that an edit list hides
    num_packets: int = 0
    is_countable: bool = False  # whether every packet must be one frame
    is_whole: bool = True  # whether every packet was decoded
    failure: str = ""

    @property
    def num_hidden(self) -> int:
        """Number of packets that an edit list hides."""
        return self.num_packets - len(self.packet_stamps)

    @property
    def num_frames(self) -> int:
        return len(self.frame_stamps) if self.is_whole else len(self.packet_stamps)

    @property
    def counts_frames(self) -> bool:
        """Whether the frames that were not decoded are known all the same."""
        stamps = self.packet_stamps
        return self.is_whole or (self.is_countable and None not in stamps and len(set(stamps)) == len(stamps))


class _Timeline(NamedTuple):
    """When the frames of a file are shown."""

    fps: float | None  # as the file states it
    num_frames: int
    promised: int  # 0 if the file does not say
    shown: NDArray[np.int64] | None  # decoded frame that each frame is; `None` if they are the decoded frames
    failure: str  # why decoding stopped early, if it did


class _Attempt(NamedTuple):
    collector: FrameCollector
    to_gray: GrayConverter
    line: _Timeline | None  # `None` if the frames of the file are not known, or not asked for


@contextmanager
def _open_stream(source: ResolvedSource, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    if av is None:
        raise VideoReadError.about(source.name, "cannot be read without PyAV", "install it with pip install av")
    require_short_index(source)
    target = source.target
    if isinstance(target, str):
        target = f"file:{target}"  # FFmpeg would take what stands before a colon for a protocol
    else:
        target.seek(0)
    try:
        options = {"format_whitelist": _CONTAINERS, **_OPTIONS, **options}
        container = av.open(target, options=options, metadata_errors="ignore")
    except av.FFmpegError as error:
        known = "neither a DICOM nor" if source.suffix in (".dcm", ".dicom") else "not"
        raise VideoReadError.about(
            source.name,
            f"is {known} a video that FFmpeg can open ({error.strerror})",
            "check that the file is complete and really a video (AVI, MP4, MKV, GIF, DICOM), whatever its name says",
        ) from error
    with container:
        if not container.streams.video:
            raise VideoReadError.about(
                source.name, "has no video stream", "pass the file with the moving image, not a sound or text file"
            )
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise VideoReadError.about(source.name, "uses a codec unknown to FFmpeg", "export it as MJPEG AVI or MP4")
        require_frame_size(stream.height, stream.width, source.name)
        # One thread: frames come out as packets go in, and clips are read by many workers at once anyway.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = _OPTIONS
        yield container, stream


def probe_container(
    source: ResolvedSource, promised: int = 0, *, as_stored: bool = False
) -> tuple[int, tuple[int, ...], float | None]:
    """Number of frames, their height and width, and the frame rate as the file states it; see `decode_container`."""
    decoded = None if av is None else _decode_by_index(source, [0], DEFAULT_MAX_BYTES, False)
    if decoded is not None and (avi := read_avi_index(source)) is not None:
        return avi.num_frames, decoded.frames.shape[1:], avi.fps
    for wanted in (frozenset[int](), None):
        with _open_stream(source) as (container, stream):
            shape: tuple[int, ...] = ()
            record = _Record()
            for _, frame, packet in _decode(container, stream, record, wanted):
                shape = shape or GrayConverter(False)(frame, None if as_stored else stream, packet).shape
            if wanted is not None and not (shape and record.counts_frames):
                continue
            line = _timeline(source, stream, record, promised)
        frames_to_read(source.name, None, line.num_frames, line.promised, failure=line.failure)
        break
    return line.num_frames, shape, line.fps


def decode_container(
    source: ResolvedSource,
    indices: list[int] | None,
    *,
    allow_truncated: bool,
    max_bytes: int,
    measure_colour: bool,
    promised: int = 0,
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> DecodedVideo:
    """The part of `read_video` that is not DICOM.

    Args:
        source: An opened or existing file.
        indices: As in `read_video`.
        allow_truncated: As in `read_video`.
        max_bytes: As in `read_video`.
        measure_colour: As in `read_video`.
        promised: Number of frames that whatever holds the file promises; 0 asks the file itself.
        prepare: What to do with every frame as it is stored; `None` makes pixels square and turns frames.
    """
    if indices is not None and av is not None:
        decoded = _decode_by_index(source, indices, max_bytes, measure_colour)
        if decoded is not None:
            return decoded

    def attempt(order: list[int] | None, *, may_skip: bool, promised: int | None) -> _Attempt:
        with _open_stream(source) as (container, stream):
            collector = FrameCollector(source.name, order, max_bytes, _expected_frames(container, stream))
            to_gray, record = GrayConverter(measure_colour), _Record()
            for number, frame, packet in _decode(container, stream, record, collector.wanted, may_skip):
                if collector.is_wanted(number):
                    luma = to_gray(frame, None if prepare else stream, packet)
                    collector.add(number, prepare(luma) if prepare else luma)
            counted = promised is not None and record.counts_frames
            line = _timeline(source, stream, record, promised or 0) if counted else None
            return _Attempt(collector, to_gray, line)

    for may_skip in (True, False):
        collector, to_gray, line = attempt(indices, may_skip=may_skip, promised=promised)
        if line is None:
            continue
        numbers = frames_to_read(
            source.name,
            indices,
            line.num_frames,
            line.promised,
            allow_truncated=allow_truncated,
            failure=line.failure,
        )
        if numbers is None:
            return DecodedVideo(collector.finish(line.shown), line.fps, to_gray.coloured_cells)
        order = numbers if line.shown is None else line.shown[numbers].tolist()
        if order != indices:
            collector, to_gray, _ = attempt(order, may_skip=may_skip, promised=None)
        if collector.complete:
            return DecodedVideo(collector.finish(), line.fps, to_gray.coloured_cells)
    raise VideoReadError.about(source.name, "is damaged: not all of its frames can be decoded", "copy it again")


def _expected_frames(container: InputContainer, stream: VideoStream) -> int:
    """Number of frames that a file seems to have; 0 if there is no telling."""
    return stream.frames or round((container.duration or 0) / 1e6 * float(stream.average_rate or 0))


def _decode_by_index(
    source: ResolvedSource, indices: list[int], max_bytes: int, measure_colour: bool
) -> DecodedVideo | None:
    """Decode without a demuxer, which reads all of a file up to the last wanted frame; `None` where that cannot be."""
    avi = read_avi_index(source)
    if avi is None:
        return None
    numbers = frames_to_read(source.name, indices, avi.num_frames)
    to_gray = GrayConverter(measure_colour)
    frames = decode_from_index(source, avi, FrameCollector(source.name, numbers, max_bytes), to_gray)
    return None if frames is None else DecodedVideo(frames, avi.fps, to_gray.coloured_cells)


def _decode(
    container: InputContainer,
    stream: VideoStream,
    record: _Record,
    wanted: Collection[int] | None = None,
    may_skip: bool = True,
) -> Iterator[tuple[int, av.VideoFrame, av.Packet]]:
    """Read a file to its end, or to where that fails, and decode it up to the last wanted frame.

    Args:
        container: The file, at its beginning.
        stream: Its video.
        record: What is filled in; complete when the last frame was taken.
        wanted: Numbers of frames that must be among those that come; `None` for all. If there are none, any one frame
            comes, which shows what frames are like.
        may_skip: Whether the packets that the wanted frames do not need may be counted only, where that is possible.
    """
    is_indexed, codec = container.format.name in _INDEXED_CONTAINERS, stream.codec_context
    is_avi = container.format.name == _AVI
    record.is_countable = is_indexed and codec.name in _ONE_FRAME_A_PACKET
    may_skip &= wanted is not None and record.is_countable
    stands_alone = may_skip and codec.name in _STAND_ALONE
    last = max(wanted, default=0) if wanted is not None else 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt and is_indexed:
                record.failure, record.is_countable = "the last frame is not whole", False
                return
            number, size, is_shown = len(record.packet_stamps), packet.size, not packet.is_discard
            if size:
                if size <= _SMALLEST_FRAME or not (record.num_packets or packet.is_keyframe):
                    record.is_countable = False
                record.num_packets += 1
                if is_shown:
                    record.packet_stamps.append(packet.dts if is_avi else packet.pts)
            if may_skip and wanted is not None:
                is_needed = number in (wanted or (0,)) if stands_alone else len(record.frame_stamps) <= last
                if not is_needed or (stands_alone and not (size and is_shown)):
                    record.is_whole = False
                    if not record.is_countable:
                        return
                    continue
            decoded = cast("list[av.VideoFrame]", packet.decode())
            if not wanted and may_skip:
                decoded = decoded or cast("list[av.VideoFrame]", codec.decode(None))
            if stands_alone:
                if len(decoded) != 1 or (decoded[0].height, decoded[0].width) != (stream.height, stream.width):
                    record.is_countable = record.is_whole = False
                    return
                record.frame_stamps += [None] * (number - len(record.frame_stamps))
            for frame in decoded:
                record.frame_stamps.append(frame.pts)
                yield len(record.frame_stamps) - 1, frame, packet
    except av.FFmpegError as error:
        record.failure, record.is_countable = error.strerror or "damaged data", False


def _timeline(source: ResolvedSource, stream: VideoStream, record: _Record, promised: int) -> _Timeline:
    """Make sense of what a pass over a file came across."""
    container, found, shown = stream.container.format.name, record.num_frames, None
    stamps = record.frame_stamps if record.is_whole else record.packet_stamps
    rate = stream.average_rate or stream.guessed_rate
    if container in _WITHOUT_TIME_STAMPS:
        rate = stream.codec_context.framerate
    fps = float(rate) if rate else None
    if container == _AVI:
        fps = fps if states_rate(source) else None
        shown = _held_frames(source, stream, record)
    elif container not in _WITHOUT_TIME_STAMPS and found and None not in stamps:
        tick = float(stream.time_base or 0)
        times = np.sort(np.array(stamps, np.float64)) * tick
        fps, shown = even_rate(times, fps if is_usable_fps(fps) else None, source.name, tick)

    failure, header = record.failure, promised or stream.frames
    if container == _MOV and not promised and stream.frames and (record.num_hidden or record.num_packets < header):
        # Samples that an edit list hides are not missing.
        if record.num_packets >= header or _count_samples(source) >= header:
            header = 0
    elif container != _AVI and not failure and is_cut_off(source):
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        seconds = seconds or (cast(InputContainer, stream.container).duration or 0) / 1e6
        header = header or round(seconds * (fps or 0))
        if container == "gif" or not header:
            failure = "the file ends early"
    return _Timeline(fps, found if shown is None else len(shown), header, shown, failure)


def _held_frames(source: ResolvedSource, stream: VideoStream, record: _Record) -> NDArray[np.int64] | None:
    """Decoded frame of every frame of an AVI file, in which a chunk of no bytes holds the one before it."""
    found, stamps = record.num_frames, record.packet_stamps
    if not found or None in stamps or len(stamps) < found:
        return None
    slots = np.sort(np.array(stamps, np.int64))[:found]
    num_frames = int(slots[-1]) + 1
    if not record.failure and num_frames < stream.frames:
        num_frames += count_held_frames(source)
    if num_frames == found or num_frames > stream.frames:
        return None
    return np.maximum(np.searchsorted(slots, np.arange(num_frames), side="right") - 1, 0).astype(np.int64)


def _count_samples(source: ResolvedSource) -> int:
    with _open_stream(source, ignore_editlist="1") as (container, stream):
        return sum(1 for packet in container.demux(stream) if packet.size)
