"""Checks of a clip before its ejection fraction is estimated."""

import warnings

import numpy as np

from .clip_sampling_echomen import ClipSpec
from .echo_video_echomen import EchoVideo, require_moving, warn_if_coloured


__all__ = ["check_clip", "clip_cautions"]

# Compression leaves a black picture below this grey level.
_BLACK_LEVEL = 20

# Grey levels by which a pixel varies (standard deviation) and share of the picture that does: a quarter of the picture
# of a beating heart varies more, and 2 % of a frozen one after strong compression.
_STILL_LEVELS = 12
_STILL_SHARE = 0.02

# Enough for both checks, and a millisecond or two for any size of video.
_CHECKED_FRAMES = 32
_CHECKED_PIXELS = 56  # along the shorter side


def check_clip(video: EchoVideo, spec: ClipSpec) -> EchoVideo:
    """Refuse a still image, and warn of a clip whose estimate is not to be relied on.

    `spec` is the length of the model's clips. The video comes back unchanged.
    """
    warn_if_coloured(require_moving(video))
    for caution in clip_cautions(video, spec):
        warnings.warn(f"{video.source}: {caution}", stacklevel=2)
    return video


def clip_cautions(video: EchoVideo, spec: ClipSpec) -> list[str]:
    """Describe a gray clip that is shorter than those of the model, black, or does not move, in a sentence each."""
    cautions = []
    seconds = spec.span(video.fps) / video.fps
    if video.num_frames < spec.span(video.fps):
        cautions.append(
            f"The clip lasts {video.duration_seconds:.2f} s, less than the {seconds:.1f} s that the model looks at; "
            "the rest is filled with blank frames. It may not hold a whole heart beat."
        )
    frames = np.linspace(0, video.num_frames - 1, min(video.num_frames, _CHECKED_FRAMES)).astype(int)
    step = max(1, min(video.frames.shape[1:]) // _CHECKED_PIXELS)
    some = video.frames[frames, ::step, ::step]  # (T, H, W) -> (t, h, w)
    if some.max() < _BLACK_LEVEL:
        cautions.append("The picture is black, so there is no heart to measure.")
    elif np.mean(some.std(axis=0, dtype=np.float32) > _STILL_LEVELS) < _STILL_SHARE:
        cautions.append("Hardly anything moves in this clip; it may be a frozen picture, which has no EF.")
    return cautions
