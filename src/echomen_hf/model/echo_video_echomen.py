"""Decoded clips and the rules that every reader shares."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import COLOURED_SHARE
from .video_source_echomen import VideoReadError


__all__ = ["DEFAULT_FPS", "FPS_RANGE", "EchoVideo", "VideoInfo", "require_moving", "usable_fps", "warn_if_coloured"]

DEFAULT_FPS = 50.0
"""Frame rate assumed where a file states none, in frames per second: that of 79 % of EchoNet-Dynamic."""

FPS_RANGE = (1.0, 1000.0)
"""Lowest and highest believable frame rate of an echo clip, in frames per second."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its clip.

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
        fps: Frames per second of the file, also when single frames were asked for.
        source: File name, for messages.
        coloured_share: Share of the picture that is coloured, the largest of the frames that were looked at; NaN if it
            was not measured.
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
        """Whether the clip must be taken for colour Doppler."""
        return self.coloured_share >= COLOURED_SHARE


Clip = TypeVar("Clip", EchoVideo, VideoInfo)


def require_moving(video: Clip, name: str | None = None) -> Clip:
    """Refuse a still image, which has no ejection fraction."""
    if video.num_frames >= 2:
        return video
    name = name or (video.source if isinstance(video, EchoVideo) else "video")
    count = "one frame" if video.num_frames == 1 else "no frame"
    raise VideoReadError.about(
        name, f"has {count}; EF needs at least 2", "pass a cine loop that covers a heart beat, not a still image"
    )


def warn_if_coloured(video: EchoVideo) -> EchoVideo:
    """Warn of a clip in colour, which the model sees in gray but was not trained on."""
    if video.is_coloured:
        warnings.warn(
            f"{video.source}: {video.coloured_share:.0%} of the picture is coloured, as in colour Doppler; the model "
            "was trained on grayscale (B-mode) clips, so its estimate is not to be relied on.",
            stacklevel=2,
        )
    return video


def usable_fps(fps: float | None, name: str, default_fps: float | None) -> float:
    """Replace a missing or unbelievable frame rate by `default_fps` with a warning; raise if that is `None`."""
    if fps is not None and FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        return fps
    problem = "states no frame rate" if not fps else f"states an unbelievable frame rate of {fps:g} per second"
    if default_fps is None:
        raise VideoReadError.about(name, problem, "export it again with its frame rate, or pass default_fps")
    warnings.warn(f"{name}: {problem}; assuming {default_fps:g} frames per second.", stacklevel=2)
    return default_fps
