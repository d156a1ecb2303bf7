"""Reading of an upload: limits before decoding, then cautions about the clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, ClipSpec, protocol_starts
from ..model.echo_video_echomen import EchoVideo, VideoInfo, cut_out_sector, require_moving
from ..model.video_reading_echomen import probe_video, read_video
from ..model.video_source_echomen import VIDEO_SUFFIXES, VideoReadError
from .limits import UploadLimits


__all__ = [
    "CLIP_NAME",
    "MAX_WINDOWS",
    "ReceivedClip",
    "known_suffix",
    "num_windows",
    "receive_clip",
    "receive_frames",
]

CLIP_NAME = "The clip"
"""What messages call an upload, whose file name may be that of a patient and is repeated nowhere."""

MAX_WINDOWS = 64
"""Windows of a clip that are read; 20 s at 50 frames per second have 16."""


@dataclass(frozen=True)
class ReceivedClip:
    """Grayscale video with sentences of caution; a simulated clip has its exact EF in percent and its seed."""

    video: EchoVideo
    cautions: tuple[str, ...] = ()
    true_ejection_fraction: float | None = None
    seed: int | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the clip was simulated."""
        return self.true_ejection_fraction is not None


def receive_clip(path: str | Path, limits: UploadLimits, spec: ClipSpec, find_sector: bool = True) -> ReceivedClip:
    """Check an uploaded file, decode it and cut out the ultrasound fan.

    Its size and header are checked first, then its packets are counted, and only then is it decoded. The message of a
    `VideoReadError` does not name the file.
    """
    num_bytes = Path(path).stat().st_size
    if num_bytes == 0:
        raise VideoReadError.about(CLIP_NAME, "is an empty file", "copy it again from its origin")
    limits.check_file_size(num_bytes, CLIP_NAME)
    try:
        info = probe_video(path)
        limits.check_header(info, CLIP_NAME)
        require_moving(info)
    except VideoReadError as error:
        raise VideoReadError.about(CLIP_NAME, error.problem, error.remedy) from error
    try:
        video = require_moving(read_video(path, max_bytes=limits.max_video_pixels))
    except VideoReadError as error:
        # The remedies of the reader are for programmers.
        remedy = "export it again from its origin, as AVI or MP4 if possible"
        raise VideoReadError.about(CLIP_NAME, error.problem, remedy) from error
    cautions = [
        *_frame_rate_caution(path, info),
        *_window_caution(video, spec),
    ]
    if find_sector:
        video = cut_out_sector(video)
    return ReceivedClip(replace(video, source=CLIP_NAME), tuple(cautions))


def num_windows(num_frames: int, fps: float, spec: ClipSpec) -> int:
    """Number of windows of a clip in the default protocol."""
    return len(protocol_starts(DEFAULT_PROTOCOL, num_frames, fps, spec))


def known_suffix(path: Path) -> str:
    """Suffix of a file if it is one of `VIDEO_SUFFIXES`, else nothing: the rest of a name may be a patient's."""
    return next((suffix for suffix in VIDEO_SUFFIXES if path.name.lower().endswith(suffix)), "")


def receive_frames(frames: NDArray[np.uint8], fps: float, ejection_fraction: float, seed: int) -> ReceivedClip:
    """A simulated clip with its exact EF in percent."""
    return ReceivedClip(EchoVideo(frames, fps, CLIP_NAME), (), ejection_fraction, seed)


def _frame_rate_caution(path: str | Path, info: VideoInfo) -> list[str]:
    try:
        probe_video(path, default_fps=None)
    except VideoReadError:
        return [
            f"The file states no believable frame rate; {info.fps:g} frames per second are assumed. At another rate "
            "the model would look at another part of the heart beat."
        ]
    return []


def _window_caution(video: EchoVideo, spec: ClipSpec) -> list[str]:
    windows = num_windows(video.num_frames, video.fps, spec)
    if windows <= MAX_WINDOWS:
        return []
    return [
        f"The clip has {windows} windows in {video.duration_seconds:.0f} s. Only {MAX_WINDOWS} of them, evenly "
        "spaced, are read, and the estimate has no interval."
    ]
