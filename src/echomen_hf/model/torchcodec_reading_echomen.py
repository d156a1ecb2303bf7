"""Decoding gray clips with torchcodec, which starts at the key frame before the first wanted frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import gray_plane
from .frame_collector_echomen import FrameCollector
from .video_source_echomen import ResolvedSource, VideoReadError


__all__ = ["decode_by_torchcodec", "load_torchcodec"]

_CHUNK = 32  # frames decoded at once: RGB takes three times the memory of what is kept
_GRAY_TOLERANCE = 1  # grey levels between the channels of a gray pixel


def load_torchcodec() -> Any:
    """Import torchcodec's video decoder.

    It is imported when it is asked for, so that nobody else waits for it or meets what is wrong with its installation.

    Returns:
        The class `torchcodec.decoders.VideoDecoder`.

    Raises:
        VideoReadError: If torchcodec is not installed, does not fit the installed torch, or finds no FFmpeg.
    """
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise _unusable("is not installed") from error
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unusable(f"cannot be loaded ({reason})") from error
    if torchcodec.ffmpeg_major_version is None:
        raise _unusable("finds no FFmpeg")
    return VideoDecoder


def _unusable(problem: str) -> VideoReadError:
    return VideoReadError.about(
        "torchcodec",
        problem,
        "pip install 'echomen-hf[torchcodec]' and install FFmpeg with its shared libraries (such as apt-get install "
        'ffmpeg), or take decoder="pyav"',
    )


def decode_by_torchcodec(
    source: ResolvedSource, stream_index: int, collector: FrameCollector
) -> NDArray[np.uint8] | None:
    """Decode the wanted frames of a clip, if it is gray and whole.

    torchcodec returns RGB alone, of which a gray clip has three equal channels. The rest is better left to PyAV: of
    colour it reads luma and measures the coloured share, and damage is settled by one rule.

    Args:
        source: An existing file, of a format that may be opened.
        stream_index: Number of the video stream in its container.
        collector: Says which frames are wanted, and how many the header promises.

    Returns:
        Frames of shape (len(indices) or number of frames, height, width), uint8, full range 0-255; `None` if the clip
        has colour, is rotated, does not have the promised or wanted frames, or cannot be decoded.

    Raises:
        VideoReadError: If torchcodec cannot be used, or the clip is too large.
    """
    video_decoder = load_torchcodec()
    target = source.target
    if not isinstance(target, str):
        target.seek(0)
    try:
        # One thread, as with PyAV: clips are read by many workers at once.
        decoder = video_decoder(
            target, stream_index=stream_index, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu"
        )
    except (RuntimeError, ValueError):
        return None
    num_frames = decoder.metadata.num_frames  # counted in the file
    wanted = range(num_frames) if collector.wanted is None else sorted(collector.wanted)
    if decoder.metadata.rotation or num_frames != (collector.expected or num_frames):
        return None
    if not wanted or wanted[-1] >= num_frames:
        return None
    frame = None
    for numbers, frames in _decode_chunks(decoder, wanted):
        if frames is None:
            return None
        for number, frame in zip(numbers, frames):
            collector.add(number, frame)
    return collector.finish(num_frames, frame)


def _decode_chunks(decoder: Any, wanted: Sequence[int]) -> Iterator[tuple[Sequence[int], NDArray[np.uint8] | None]]:
    """Decode a few frames at a time; `None` in their place, the last, if they have colour or cannot be decoded."""
    for start in range(0, len(wanted), _CHUNK):
        numbers = wanted[start : start + _CHUNK]
        try:
            pixels = decoder.get_frames_at(list(numbers)).data.numpy()  # (T, H, W, 3)
        except (RuntimeError, ValueError, IndexError):
            yield numbers, None
            return
        yield numbers, gray_plane(pixels, _GRAY_TOLERANCE)
