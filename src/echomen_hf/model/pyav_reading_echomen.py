"""Reading of video files with PyAV: every container and codec that FFmpeg knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from .echo_video_echomen import EchoVideo, VideoInfo, usable_fps
from .frame_collector_echomen import FrameCollector, clearly_fewer
from .gray_conversion_echomen import GrayConverter
from .mjpeg_avi_echomen import decode_from_index, read_avi_index
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


@contextmanager
def _open_stream(source: ResolvedSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    if av is None:
        raise VideoReadError.about(source.name, "cannot be read without PyAV", "install it with pip install av")
    target = source.target
    if not isinstance(target, str):
        target.seek(0)
    try:
        container = av.open(target, options={"format_whitelist": _CONTAINERS}, metadata_errors="ignore")
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
        # One thread: frames come out as packets go in, and clips are read by many workers at once anyway.
        stream.codec_context.thread_count = 1
        yield container, stream


def _stream_fps(stream: VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def probe_container(source: ResolvedSource, default_fps: float | None, *, count_packets: bool) -> VideoInfo:
    """The part of `probe_video` that is not DICOM."""
    with _open_stream(source) as (container, stream):
        if not (stream.width and stream.height):
            raise VideoReadError.about(source.name, "states no frame size", "copy or export it again")
        fps = usable_fps(_stream_fps(stream), source.name, default_fps)
        num_frames = stream.frames
        if count_packets or not num_frames:
            num_frames = sum(1 for packet in container.demux(stream) if packet.size)
        if clearly_fewer(num_frames, stream.frames):
            raise VideoReadError.about(
                source.name,
                f"ends after {num_frames} frames of the {stream.frames} that its header promises",
                "copy it again from its origin",
            )
        return VideoInfo(num_frames, stream.height, stream.width, fps)


def decode_container(
    source: ResolvedSource,
    indices: Sequence[int] | None,
    default_fps: float | None,
    *,
    allow_truncated: bool,
    max_bytes: int,
    measure_colour: bool,
) -> EchoVideo:
    """The part of `read_video` that is not DICOM."""
    collect = partial(FrameCollector, source.name, indices, allow_truncated=allow_truncated, max_bytes=max_bytes)
    if indices is not None and av is not None:
        video = _decode_by_index(source, default_fps, collect, measure_colour)
        if video is not None:
            return video
    frames = None
    with _open_stream(source) as (container, stream):
        to_gray = GrayConverter(measure_colour)
        fps = usable_fps(_stream_fps(stream), source.name, default_fps)
        num_frames = stream.frames
        collector = collect(num_frames)
        if indices is None or not stream.codec_context.codec.intra_only:
            frames = _decode_in_sequence(container, stream, collector, to_gray)
        else:
            frames = _decode_wanted_packets(container, stream, collector, to_gray)
    if frames is None:
        with _open_stream(source) as (container, stream):
            frames = _decode_in_sequence(container, stream, collect(num_frames), to_gray)
    return EchoVideo(frames, fps, source.name, to_gray.coloured_share)


def _decode_by_index(
    source: ResolvedSource,
    default_fps: float | None,
    collect: Callable[[int], FrameCollector],
    measure_colour: bool,
) -> EchoVideo | None:
    """Decode without a demuxer, which reads all of a file up to the last wanted frame; `None` where that cannot be."""
    avi = read_avi_index(source)
    if avi is None:
        return None
    to_gray = GrayConverter(measure_colour)
    frames = decode_from_index(source, avi, collect(avi.num_frames), to_gray)
    if frames is None:
        return None
    return EchoVideo(frames, usable_fps(avi.fps, source.name, default_fps), source.name, to_gray.coloured_share)


def _decode_wanted_packets(
    container: InputContainer, stream: VideoStream, collector: FrameCollector, to_gray: GrayConverter
) -> NDArray[np.uint8] | None:
    """Decode only the packets of wanted frames; `None` if packets and frames do not correspond one to one."""
    index = -1
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            index += 1
            if collector.is_wanted(index):
                decoded = packet.decode()
                if len(decoded) != 1:
                    return None
                gray = to_gray(cast(av.VideoFrame, decoded[0]))
                collector.add(index, gray)
                if collector.complete:
                    return collector.finish(index + 1, gray)
    except av.FFmpegError:
        pass
    return None


def _decode_in_sequence(
    container: InputContainer, stream: VideoStream, collector: FrameCollector, to_gray: GrayConverter
) -> NDArray[np.uint8]:
    num_decoded, frame, failure = 0, None, ""
    try:
        for frame in container.decode(stream):
            if collector.is_wanted(num_decoded):
                collector.add(num_decoded, to_gray(frame))
            num_decoded += 1
            if collector.complete:
                break
    except av.FFmpegError as error:
        failure = error.strerror or "damaged data"
    return collector.finish(num_decoded, None if frame is None else to_gray(frame), failure)
