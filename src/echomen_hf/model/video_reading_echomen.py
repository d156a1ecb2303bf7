"""Reading echo clips: any container FFmpeg knows, or DICOM, to grayscale frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import COLOURED_SHARE
from .frame_collector_echomen import DEFAULT_MAX_BYTES, FrameCollector, clearly_fewer
from .gray_conversion_echomen import GrayConverter
from .mjpeg_avi_echomen import decode_from_index, read_avi_index
from .simplejpeg_reading_echomen import decode_by_simplejpeg, load_simplejpeg
from .torchcodec_reading_echomen import decode_by_torchcodec, load_torchcodec
from .video_source_echomen import ResolvedSource, VideoReadError, VideoSource, resolve_source


try:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
except ImportError:
    av = None

__all__ = [
    "DECODERS",
    "DEFAULT_FPS",
    "FPS_RANGE",
    "EchoVideo",
    "VideoInfo",
    "VideoReadError",
    "VideoSource",
    "decode_container",
    "probe_video",
    "read_video",
    "require_decoder",
    "require_moving",
    "usable_fps",
    "warn_if_coloured",
]

DECODERS = ("pyav", "simplejpeg", "torchcodec")
"""What decodes everything that is not DICOM."""

DEFAULT_FPS = 50.0
"""Frame rate assumed where a file states none, in frames per second: that of 79 % of EchoNet-Dynamic."""

FPS_RANGE = (1.0, 1000.0)
"""Lowest and highest believable frame rate of an echo clip, in frames per second."""

# FFmpeg also opens play lists, scripts and text art, which may point at other files or at the network.
_CONTAINERS = (
    "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,apng,asf,"
    "mpeg,mpegts,mpegvideo,m4v,h264,hevc,mjpeg,flv,ogg,mxf,nut,ivf"
)


@dataclass(frozen=True)
class VideoInfo:
    """What the header of a clip says.

    Args:
        num_frames: Number of frames.
        height: Frame height in pixels.
        width: Frame width in pixels.
        fps: Frames per second.
    """

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class EchoVideo:
    """A decoded grayscale clip.

    Args:
        frames: Pixels of shape (frames, height, width), uint8, full range 0-255.
        fps: Frames per second of the file; when single frames were asked for, still that of the file.
        source: File name, for messages.
        coloured_share: Share of the picture that was in colour before it became gray, the largest of the frames that
            were looked at; see `coloured_share` in `colour_doppler_echomen`. NaN if it was not measured.
    """

    frames: NDArray[np.uint8]
    fps: float
    source: str
    coloured_share: float = 0.0

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def duration_seconds(self) -> float:
        """Time that the frames cover, in seconds."""
        return self.num_frames / self.fps

    @property
    def is_coloured(self) -> bool:
        """Whether so much is in colour that it must be taken for colour Doppler."""
        return self.coloured_share >= COLOURED_SHARE


Clip = TypeVar("Clip", EchoVideo, VideoInfo)


def require_moving(video: Clip, name: str | None = None) -> Clip:
    """Refuse a still image, which has no ejection fraction.

    Args:
        video: A decoded clip or its header.
        name: File name for the message; the clip's own by default.

    Returns:
        `video`, unchanged.

    Raises:
        VideoReadError: If there are fewer than two frames.
    """
    if video.num_frames >= 2:
        return video
    name = name or (video.source if isinstance(video, EchoVideo) else "video")
    count = "one frame" if video.num_frames == 1 else "no frame"
    raise VideoReadError.about(
        name, f"has {count}; EF needs at least 2", "pass a cine loop that covers a heart beat, not a still image"
    )


def warn_if_coloured(video: EchoVideo) -> EchoVideo:
    """Warn of a clip in colour, which the model sees in gray but was not trained on.

    Args:
        video: A decoded clip.

    Returns:
        `video`, unchanged.
    """
    if video.is_coloured:
        warnings.warn(
            f"{video.source}: {video.coloured_share:.0%} of the picture is coloured, as in colour Doppler; the model "
            "was trained on grayscale (B-mode) clips, so its estimate is not to be relied on.",
            stacklevel=2,
        )
    return video


def usable_fps(fps: float | None, name: str, default_fps: float | None) -> float:
    """Replace a missing or unbelievable frame rate.

    Args:
        fps: Frames per second as the file states it.
        name: File name for messages.
        default_fps: Frames per second to assume instead, with a warning; `None` to raise.

    Returns:
        `fps` where it lies in `FPS_RANGE`, else `default_fps`.

    Raises:
        VideoReadError: If the frame rate is unusable and there is no default.
    """
    if fps is not None and FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        return fps
    problem = "states no frame rate" if not fps else f"states an unbelievable frame rate of {fps:g} per second"
    if default_fps is None:
        raise VideoReadError.about(name, problem, "export it again with its frame rate, or pass default_fps")
    warnings.warn(f"{name}: {problem}; assuming {default_fps:g} frames per second.", stacklevel=2)
    return default_fps


@contextmanager
def _open_stream(source: ResolvedSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and its first video stream; the container is closed in any case."""
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
        # One thread: frames come out as packets go in, and clips are read by many workers at once anyway.
        if stream.codec_context is None:
            raise VideoReadError.about(source.name, "uses a codec unknown to FFmpeg", "export it as MJPEG AVI or MP4")
        stream.codec_context.thread_count = 1
        yield container, stream


def _stream_fps(stream: VideoStream) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def probe_video(
    source: VideoSource, default_fps: float | None = DEFAULT_FPS, *, count_packets: bool = False
) -> VideoInfo:
    """Read the header of a clip, without decoding.

    Where the container does not state the number of frames (MKV), its packets are counted.

    Args:
        source: See `VideoSource`.
        default_fps: Frames per second to assume, with a warning, if the header states none or an absurd one; `None` to
            raise instead.
        count_packets: Read the file through and count its frames whatever its header says, still without decoding:
            a file that was cut off has fewer than its header promises.

    Returns:
        Number of frames, size and frame rate; for DICOM the size after the crop that `read_dicom` makes.

    Raises:
        VideoReadError: If the file is missing or is not a video.
    """
    from .dicom_reading_echomen import is_dicom, probe_dicom

    resolved = resolve_source(source)
    if is_dicom(resolved):
        return probe_dicom(resolved, default_fps=default_fps)
    with _open_stream(resolved) as (container, stream):
        if not (stream.width and stream.height):
            raise VideoReadError.about(resolved.name, "states no frame size", "copy or export it again")
        fps = usable_fps(_stream_fps(stream), resolved.name, default_fps)
        num_frames = stream.frames
        if count_packets or not num_frames:
            num_frames = sum(1 for packet in container.demux(stream) if packet.size)
        if clearly_fewer(num_frames, stream.frames):
            raise VideoReadError.about(
                resolved.name,
                f"ends after {num_frames} frames of the {stream.frames} that its header promises",
                "copy it again from its origin",
            )
        return VideoInfo(num_frames, stream.height, stream.width, fps)


def require_decoder(decoder: str) -> None:
    """Refuse a decoder that cannot be used here, before anything is read.

    Args:
        decoder: One of `DECODERS`.

    Raises:
        ValueError: If there is no such decoder.
        VideoReadError: If it is not installed or does not work.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
    if decoder == "simplejpeg":
        load_simplejpeg()
    elif decoder == "torchcodec":
        load_torchcodec()


def read_video(
    source: VideoSource,
    indices: Sequence[int] | None = None,
    default_fps: float | None = DEFAULT_FPS,
    *,
    allow_truncated: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
    decoder: str = "pyav",
    measure_colour: bool = True,
) -> EchoVideo:
    """Decode a clip, or some of its frames, to grayscale.

    DICOM is recognised by its content and goes to `read_dicom`; everything else (AVI, MP4, MKV, GIF, ...; any size and
    colour) to FFmpeg. Luma is on the full 0-255 scale: limited-range video (16-235) is stretched, colour is converted
    with the weights of its own colour space.

    Args:
        source: See `VideoSource`.
        indices: Frame numbers to return, from 0, in this order, repeats allowed; `None` returns all frames. Nothing
            past the highest one is decoded, and in codecs without inter-frame prediction (MJPEG) nothing else either.
        default_fps: Frames per second to assume, with a warning, if the file states none or an absurd one; `None` to
            raise instead.
        allow_truncated: Use, with a warning, the frames before the damage where a file ends clearly before the number
            of frames that its header promises; wanted frames after it repeat the last one.
        max_bytes: Most bytes of grayscale frames to decode; guards against clips that do not fit in memory.
        decoder: One of `DECODERS`. "simplejpeg" is faster for Motion JPEG in AVI, "torchcodec" for late frames of
            codecs with inter-frame prediction. Either may differ by one grey level, and decodes gray and whole clips;
            PyAV still decodes everything else.
        measure_colour: Whether to measure `coloured_share`, which takes time and else is NaN; DICOM always has it.

    Returns:
        The clip. A still image comes back as a clip of one frame: see `require_moving`.

    Raises:
        VideoReadError: If the file is missing, not a video, damaged or too large, or does not have a wanted frame,
            or if the decoder cannot be used.
        ValueError: If an index is negative, or there is no such decoder.
    """
    from .dicom_reading_echomen import is_dicom, read_dicom

    require_decoder(decoder)
    resolved = resolve_source(source)
    if is_dicom(resolved):
        return read_dicom(
            resolved, indices, default_fps=default_fps, allow_truncated=allow_truncated, max_bytes=max_bytes
        )
    collect = partial(FrameCollector, resolved.name, indices, allow_truncated=allow_truncated, max_bytes=max_bytes)
    frames, stated_fps = None, None
    if decoder == "simplejpeg":
        avi = read_avi_index(resolved)
        if avi is not None:
            frames, stated_fps = decode_by_simplejpeg(resolved, avi, collect(avi.num_frames), measure_colour), avi.fps
    elif decoder == "torchcodec":
        with _open_stream(resolved) as (_, stream):
            stated_fps, expected, stream_index = _stream_fps(stream), stream.frames, stream.index
        frames = decode_by_torchcodec(resolved, stream_index, collect(expected))
    if frames is not None:
        share = 0.0 if measure_colour else float("nan")
        return EchoVideo(frames, usable_fps(stated_fps, resolved.name, default_fps), resolved.name, share)
    return decode_container(
        resolved,
        indices,
        default_fps,
        allow_truncated=allow_truncated,
        max_bytes=max_bytes,
        measure_colour=measure_colour,
    )


def decode_container(
    source: ResolvedSource,
    indices: Sequence[int] | None,
    default_fps: float | None,
    *,
    allow_truncated: bool,
    max_bytes: int,
    measure_colour: bool,
) -> EchoVideo:
    """Decode with PyAV; the part of `read_video` that is not DICOM.

    Args:
        source: An opened or existing file.
        indices: As in `read_video`.
        default_fps: As in `read_video`.
        allow_truncated: As in `read_video`.
        max_bytes: As in `read_video`.
        measure_colour: As in `read_video`.

    Returns:
        The clip.

    Raises:
        VideoReadError: As in `read_video`.
    """
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
