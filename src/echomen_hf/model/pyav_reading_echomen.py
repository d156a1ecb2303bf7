"""Reading of video files with PyAV: every container and codec that FFmpeg knows.

Decoding a file from its beginning to its end says how many frames it has, and when they are shown. Single frames and
the header are read faster only where that cannot make a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from .container_end_echomen import is_cut_off
from .echo_video_echomen import (
    MAX_FRAME_PIXELS,
    DecodedFrames,
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
    """What a pass over a file came across: packets, and the time stamps of packets (AVI) or frames."""

    stamps: list[int | None] = field(default_factory=list)
    num_frames: int = 0
    num_packets: int = 0
    num_hidden: int = 0  # packets that an edit list hides
    failure: str = ""
    shape: tuple[int, ...] = (0, 0)  # of the first frame, upright and with square pixels


class _Timeline(NamedTuple):
    """When the frames of a file are shown."""

    fps: float | None  # as the file states it
    num_frames: int
    promised: int  # 0 if the file does not say
    shown: NDArray[np.int64] | None  # decoded frame that each frame is; `None` if they are the decoded frames
    failure: str  # why decoding stopped early, if it did
    shape: tuple[int, ...]  # height and width of a frame
    stand_alone: bool  # whether every packet is a frame that needs no other


@contextmanager
def _open_stream(source: ResolvedSource, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    if av is None:
        raise VideoReadError.about(source.name, "cannot be read without PyAV", "install it with pip install av")
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


def probe_container(source: ResolvedSource, promised: int = 0) -> tuple[int, tuple[int, ...], float | None]:
    """Number of frames, their height and width, and the frame rate as the file states it; see `decode_container`."""
    decoded = None if av is None else _decode_by_index(source, [0], DEFAULT_MAX_BYTES, False)
    if decoded is not None and (avi := read_avi_index(source)) is not None:
        return avi.num_frames, decoded.frames.shape[1:], avi.fps
    line = _scan(source, promised)
    frames_to_read(source.name, None, line.num_frames, line.promised, failure=line.failure)
    return line.num_frames, line.shape, line.fps


def decode_container(
    source: ResolvedSource,
    indices: list[int] | None,
    *,
    allow_truncated: bool,
    max_bytes: int,
    measure_colour: bool,
    promised: int = 0,
    as_stored: bool = False,
) -> DecodedFrames:
    """The part of `read_video` that is not DICOM.

    Args:
        source: An opened or existing file.
        indices: As in `read_video`.
        allow_truncated: As in `read_video`.
        max_bytes: As in `read_video`.
        measure_colour: As in `read_video`.
        promised: Number of frames that whatever holds the file promises; 0 asks the file itself.
        as_stored: Neither make pixels square nor turn frames.
    """
    if indices is None:
        with _open_stream(source) as (container, stream):
            collector = FrameCollector(source.name, None, max_bytes, stream.frames)
            to_gray, record = GrayConverter(measure_colour), _Record()
            shape_source = None if as_stored else stream
            for number, frame in enumerate(_decode(container, stream, record)):
                collector.add(number, to_gray(frame, shape_source))
            line = _timeline(source, stream, record, promised)
        frames_to_read(
            source.name,
            None,
            line.num_frames,
            line.promised,
            allow_truncated=allow_truncated,
            failure=line.failure,
        )
        if line.shown is None:
            return DecodedFrames(collector.finish(), line.fps, to_gray.coloured_share)
        collector.require_room(len(line.shown))
        return DecodedFrames(collector.finish()[line.shown], line.fps, to_gray.coloured_share)
    if av is not None and (decoded := _decode_by_index(source, indices, max_bytes, measure_colour)) is not None:
        return decoded
    for scan in (_scan, _scan_by_decoding):
        line = scan(source, promised)
        numbers = frames_to_read(
            source.name,
            indices,
            line.num_frames,
            line.promised,
            allow_truncated=allow_truncated,
            failure=line.failure,
        )
        order = numbers if line.shown is None else line.shown[numbers].tolist()
        for alone in (True, False) if line.stand_alone else (False,):
            with _open_stream(source) as (container, stream):
                collector = FrameCollector(source.name, order, max_bytes)
                to_gray = GrayConverter(measure_colour)
                for number, frame in _decode_wanted(container, stream, collector, alone):
                    collector.add(number, to_gray(frame, None if as_stored else stream))
                    if collector.complete:
                        return DecodedFrames(collector.finish(), line.fps, to_gray.coloured_share)
    raise VideoReadError.about(source.name, "is damaged: not all of its frames can be decoded", "copy it again")


def _decode_by_index(
    source: ResolvedSource, indices: list[int], max_bytes: int, measure_colour: bool
) -> DecodedFrames | None:
    """Decode without a demuxer, which reads all of a file up to the last wanted frame; `None` where that cannot be."""
    avi = read_avi_index(source)
    if avi is None:
        return None
    numbers = frames_to_read(source.name, indices, avi.num_frames)
    to_gray = GrayConverter(measure_colour)
    frames = decode_from_index(source, avi, FrameCollector(source.name, numbers, max_bytes), to_gray)
    return None if frames is None else DecodedFrames(frames, avi.fps, to_gray.coloured_share)


def _decode(container: InputContainer, stream: VideoStream, record: _Record) -> Iterator[av.VideoFrame]:
    """Decode from beginning to end, or to where that fails."""
    is_avi = container.format.name == _AVI
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt and container.format.name in _INDEXED_CONTAINERS:
                record.failure = "the last frame is not whole"
                return
            if packet.size:
                record.num_packets += 1
                record.num_hidden += packet.is_discard
                if is_avi:
                    record.stamps.append(packet.dts)
            for frame in cast("list[av.VideoFrame]", packet.decode()):
                if not record.num_frames:
                    record.shape = GrayConverter(False)(frame, stream).shape
                record.num_frames += 1
                if not is_avi:
                    record.stamps.append(frame.pts)
                yield frame
    except av.FFmpegError as error:
        record.failure = error.strerror or "damaged data"


def _decode_wanted(
    container: InputContainer, stream: VideoStream, collector: FrameCollector, alone: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode the wanted frames: `alone`, without those between them, or all up to the last."""
    if not alone:
        frames = enumerate(_decode(container, stream, _Record()))
        yield from ((number, frame) for number, frame in frames if collector.is_wanted(number))
        return
    try:
        packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        for number, packet in enumerate(packets):
            if collector.is_wanted(number):
                decoded = cast("list[av.VideoFrame]", packet.decode())
                if len(decoded) != 1 or (decoded[0].height, decoded[0].width) != (stream.height, stream.width):
                    return
                yield number, decoded[0]
    except av.FFmpegError:
        return


def _scan(source: ResolvedSource, promised: int = 0) -> _Timeline:
    """Find the frames of a file without decoding, where packets are known to hold one frame each."""
    with _open_stream(source) as (container, stream):
        if stream.codec_context.name in _ONE_FRAME_A_PACKET and container.format.name in _INDEXED_CONTAINERS:
            record, is_avi, is_known = _Record(), container.format.name == _AVI, True
            for packet in container.demux(stream):
                if not any(record.shape):
                    is_known &= _note_shape(packet, stream, record)
                if packet.size:
                    is_known &= packet.size > _SMALLEST_FRAME and not packet.is_corrupt
                    is_known &= packet.is_keyframe or record.num_packets > 0
                    record.num_packets += 1
                    record.num_hidden += packet.is_discard
                    if not packet.is_discard:
                        record.stamps.append(packet.dts if is_avi else packet.pts)
            is_known &= any(record.shape) and None not in record.stamps
            if is_known and len(set(record.stamps)) == len(record.stamps):
                record.num_frames = len(record.stamps)
                return _timeline(source, stream, record, promised)
    return _scan_by_decoding(source, promised)


def _note_shape(packet: av.Packet, stream: VideoStream, record: _Record) -> bool:
    """Decode a packet for the size of the first frame; false if that fails."""
    try:
        frame = next(iter(cast("list[av.VideoFrame]", packet.decode())), None)
    except av.FFmpegError:
        return False
    if frame is not None:
        record.shape = GrayConverter(False)(frame, stream).shape
    return True


def _scan_by_decoding(source: ResolvedSource, promised: int = 0) -> _Timeline:
    with _open_stream(source) as (container, stream):
        record = _Record()
        for _ in _decode(container, stream, record):
            pass
        return _timeline(source, stream, record, promised)


def _timeline(source: ResolvedSource, stream: VideoStream, record: _Record, promised: int) -> _Timeline:
    """Make sense of what a pass over a file came across."""
    container, found, shown = stream.container.format.name, record.num_frames, None
    rate = stream.average_rate or stream.guessed_rate
    if container in _WITHOUT_TIME_STAMPS:
        rate = stream.codec_context.framerate
    fps = float(rate) if rate else None
    if container == _AVI:
        fps = fps if states_rate(source) else None
        shown = _held_frames(source, stream, record)
    elif container not in _WITHOUT_TIME_STAMPS and found and None not in record.stamps:
        tick = float(stream.time_base or 0)
        times = np.sort(np.array(record.stamps, np.float64)) * tick
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
    stand_alone = stream.codec_context.name in _STAND_ALONE
    return _Timeline(fps, found if shown is None else len(shown), header, shown, failure, record.shape, stand_alone)


def _held_frames(source: ResolvedSource, stream: VideoStream, record: _Record) -> NDArray[np.int64] | None:
    """Decoded frame of every frame of an AVI file, in which a chunk of no bytes holds the one before it."""
    found, stamps = record.num_frames, record.stamps
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
