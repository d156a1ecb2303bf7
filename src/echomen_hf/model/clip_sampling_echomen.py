"""Frames of the clips of a video, of equal duration at any frame rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray


__all__ = [
    "DEFAULT_PROTOCOL",
    "PADDING_INDEX",
    "ClipSpec",
    "ShortVideos",
    "clip_indices",
    "parse_protocol",
    "protocol_starts",
    "random_start",
]

DEFAULT_PROTOCOL = "windows"
"""Test protocol unless another is named."""

PADDING_INDEX = -1
"""Stands for a frame past the end of a short video; such frames are later filled with the mean."""

ShortVideos = Literal["zeros", "last_frame", "loop", "back_and_forth"]
"""What fills a clip that the video is too short for."""


@dataclass(frozen=True)
class ClipSpec:
    """Length and temporal spacing of a clip.

    The defaults are EchoNet-Dynamic's 32 frames, every 2nd at 50 frames per second. At another frame rate the spacing
    changes in proportion, so that a clip always spans the same time (1.26 s by default). A video that ends before its
    clip is filled up with the mean, with its last frame, or with itself from its start or backwards.
    """

    num_frames: int = 32
    sampling_period: float = 2  # source frames from one frame of the clip to the next, at `reference_fps`
    reference_fps: float = 50.0
    short_videos: ShortVideos = "zeros"

    def __post_init__(self) -> None:
        if self.num_frames != int(self.num_frames) or self.num_frames < 1:
            raise ValueError(f"num_frames must be a whole number of at least 1, got {self.num_frames}.")
        for name in ("sampling_period", "reference_fps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}.")
        if self.short_videos not in get_args(ShortVideos):
            choices = ", ".join(get_args(ShortVideos))
            raise ValueError(f"short_videos must be one of {choices}, got {self.short_videos!r}.")

    def frame_step(self, fps: float) -> float:
        """Spacing of the clip's frames in a given video."""
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be a positive number, got {fps}.")
        return self.sampling_period * fps / self.reference_fps

    def frame_offsets(self, fps: float) -> NDArray[np.int64]:
        """Source frames of a clip, counted from its start."""
        positions = np.arange(self.num_frames) * self.frame_step(fps)
        # The tiny term keeps an exact half, blurred by division, on its upper side.
        return np.floor(positions + 0.5 + 1e-9).astype(np.int64)

    def span(self, fps: float) -> int:
        """Source frames from the first to the last frame of a clip, both included."""
        return int(self.frame_offsets(fps)[-1]) + 1

    def within(self, indices: NDArray[np.int64], video_length: int) -> NDArray[np.int64]:
        """Put frames past the end of a video where they are taken from, `PADDING_INDEX` for the mean."""
        last = video_length - 1
        if self.short_videos == "last_frame":
            return np.minimum(indices, last)
        if self.short_videos == "loop":
            return indices % video_length
        if self.short_videos == "back_and_forth":
            return last - np.abs(indices % max(2 * last, 1) - last)
        return np.where(indices <= last, indices, PADDING_INDEX)


def clip_indices(start: int, video_length: int, fps: float, spec: ClipSpec) -> NDArray[np.int64]:
    """Source frames of the clip that begins at a given frame."""
    if not 0 <= start < video_length:
        raise ValueError(f"start must lie in [0, {video_length}), the frames of the video, got {start}.")
    return spec.within(start + spec.frame_offsets(fps), video_length)


def random_start(video_length: int, fps: float, spec: ClipSpec, generator: np.random.Generator) -> int:
    """Draw the start of a training clip, uniform over all starts where a full clip fits."""
    return int(generator.integers(_last_start(video_length, fps, spec) + 1))


def parse_protocol(protocol: str | int) -> str:
    """Bring the name of a test protocol to the form that metrics files have.

    It is `"all"`, `"everyN"` such as `"every4"`, `"windows"`, `"beats"`, `"center"`, or a number of clips, as text or
    number. Case does not matter, and `"every1"` is `"all"`. `"vectors"` stands for the clips that a file of vectors
    holds.
    """
    name = str(protocol).strip().lower()
    if name in ("all", "windows", "beats", "center", "vectors"):
        return name
    if name.isascii() and name.isdigit() and int(name) >= 1:
        return str(int(name))
    stride = _start_stride(name)
    if stride is not None:
        return "all" if stride == 1 else f"every{stride}"
    raise ValueError(
        f"Unknown protocol {protocol!r}: choose 'all' (every start frame), 'everyN' (every N-th start frame and the "
        "last one, such as 'every4'), 'windows' (back-to-back clips, the default), 'beats' (one around each end "
        "systole, where videos are outlined), 'center' (one clip from the middle), or a whole number N >= 1 (N evenly "
        "spaced clips)."
    )


def protocol_starts(
    protocol: str | int, video_length: int, fps: float, spec: ClipSpec, systoles: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Starts of the clips that a test protocol takes from a video.

    Back-to-back windows are `num_frames * step` source frames apart (64 for the default clip at 50 frames per second);
    what remains at the end gets one more window, shifted back so that it is full. `everyN` also ends with the last
    start, so that no frame of the video is left out. `beats` is the beat-to-beat protocol of EchoNet-Dynamic, a clip
    around each end systole; without any, its clips are those of `windows`.

    Args:
        protocol: See `parse_protocol`.
        video_length: Frames in the video.
        fps: Frames per second of the video.
        spec: Length and spacing of the clip.
        systoles: Frames of end systole, which `beats` needs.

    Returns:
        Increasing, distinct first frames; a video too short for a full clip gives the single start 0, and N evenly
        spaced clips may be fewer than N if the video has fewer distinct starts.

    Raises:
        ValueError: If the protocol is unknown, if the video has no frames, or if nobody looked for its end systoles.
    """
    protocol = parse_protocol(protocol)
    last = _last_start(video_length, fps, spec)
    if protocol == "beats":
        if systoles is None:
            raise ValueError(
                "The protocol 'beats' needs the outline of a video, which `echomen predict --outline` and "
                "`Predictor(outline=True)` make; choose another one here."
            )
        if len(systoles):
            return np.unique(np.clip(np.asarray(systoles) - spec.span(fps) // 2, 0, last))
        protocol = "windows"
    if protocol == "all":
        return np.arange(last + 1)
    if protocol in ("center", "1"):
        return np.array([last // 2])
    if protocol == "windows":
        stride = max(1, math.floor(spec.num_frames * spec.frame_step(fps) + 0.5))
        return np.append(np.arange(0, last, stride), last)
    if protocol == "vectors":
        raise ValueError("The protocol 'vectors' is that of a file of vectors, and takes no clips of a video.")
    start_stride = _start_stride(protocol)
    if start_stride is not None:
        return np.append(np.arange(0, last, start_stride), last)
    return np.unique(np.rint(np.linspace(0, last, int(protocol))).astype(np.int64))


def _start_stride(name: str) -> int | None:
    match = re.fullmatch(r"every0*([1-9][0-9]*)", name)
    return int(match.group(1)) if match else None


def _last_start(video_length: int, fps: float, spec: ClipSpec) -> int:
    if video_length < 1:
        raise ValueError(f"video_length must be at least 1 frame, got {video_length}.")
    return max(0, video_length - spec.span(fps))
