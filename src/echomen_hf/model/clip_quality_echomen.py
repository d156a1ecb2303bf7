"""Quality of a clip and of its estimate: whether an ejection fraction can be trusted, and why not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .clip_sampling_echomen import ClipSpec
from .echo_video_echomen import EchoVideo, require_moving
from .moving_region_echomen import opened
from .sector_echomen import is_data_set_clip


__all__ = [
    "ClipQualityWarning",
    "Finding",
    "Quality",
    "check_clip",
    "inspect_clip",
    "inspect_estimate",
    "inspect_outline",
    "overall_quality",
]

Quality = Literal["good", "doubtful", "unusable"]

# Compression leaves a black picture below this grey level.
_BLACK_LEVEL = 20

# Grey levels by which a pixel varies (standard deviation) and share of the picture that does: a quarter of the picture
# of a beating heart varies more, and 2 % of a frozen one after strong compression.
_STILL_LEVELS = 12
_STILL_SHARE = 0.02

# Enough for both checks, and a millisecond or two for any size of video.
_CHECKED_FRAMES = 32
_CHECKED_PIXELS = 56  # along the shorter side

# Seconds, of a heart that beats 100 times a minute. The picture itself does not tell whether it has come back to where
# a beat began, since speckle changes all the time; an outline does.
_SHORTEST_BEAT = 0.6
_SLOWEST_FPS = 2 / _SHORTEST_BEAT
_LOWEST_FPS = 8.0
_FAR = 2.0  # times the limit of the distance from the training distribution; simulated hearts do not come near it
_CLIP_SD = 10.0  # EF points; clips of one heart differ by less, also if it beats irregularly


class ClipQualityWarning(UserWarning):
    """Warning of a clip whose estimate is doubtful or unusable."""


@dataclass(frozen=True)
class Finding:
    """A reason why an estimate is not good, in a sentence, and how serious it is."""

    quality: Literal["doubtful", "unusable"]
    reason: str


def check_clip(
    video: EchoVideo, spec: ClipSpec, outline: Any = None, is_other_view: bool | None = None
) -> tuple[Finding, ...]:
    """Refuse a still image, and warn of everything that `inspect_clip` finds."""
    findings = inspect_clip(require_moving(video), spec, outline, is_other_view)
    for finding in findings:
        warnings.warn(f"{video.source}: {finding.reason}", ClipQualityWarning, stacklevel=3)
    return findings


def inspect_clip(
    video: EchoVideo, spec: ClipSpec, outline: Any = None, is_other_view: bool | None = None
) -> tuple[Finding, ...]:
    """Look for what makes the estimate of a clip doubtful or unusable.

    Args:
        video: Grayscale video, whose fan has been looked for or not.
        spec: Length of the model's clips.
        outline: `VideoOutline` of the video, whose view is then judged, and whose beats are counted.
        is_other_view: Whether a few outlines, without an `outline`, speak against an apical four-chamber view; `None`
            if none were drawn.

    Returns:
        Findings: black, still, colour Doppler, no ultrasound fan, no whole beat, shorter than a clip, slow,
        another view. A picture with neither a fan nor a ventricle has nothing to measure.
    """
    has_fan = video.sector is None or video.sector.shape != "none"
    findings = []
    numbers = np.linspace(0, video.num_frames - 1, min(video.num_frames, _CHECKED_FRAMES)).astype(int)
    step = max(1, min(video.frames.shape[1:]) // _CHECKED_PIXELS)
    some = video.frames[numbers, ::step, ::step]  # (T, H, W) -> (t, h, w)
    if some.max() < _BLACK_LEVEL:
        return (Finding("unusable", "The picture is black, so there is no heart to measure."),)
    varies = some.std(axis=0, dtype=np.float32) > _STILL_LEVELS
    # Of a screen without a fan that moves, the trace of an electrocardiogram may be all that does, in thin places.
    if np.mean(varies if has_fan else opened(varies)) < _STILL_SHARE:
        return (
            Finding("unusable", "Hardly anything moves in this clip; it may be a frozen picture, which has no EF."),
        )
    if video.is_coloured:
        share = f"{video.coloured_share:.0%} of the picture is coloured, as in colour Doppler"
        findings.append(Finding("doubtful", f"{share}; the model was trained on grayscale (B-mode) clips."))
    if outline is not None:
        is_other_view = outline.is_other_view
    if not has_fan and is_other_view:
        text = "Neither an ultrasound fan nor a left ventricle was found, so there is nothing to measure."
        findings.append(Finding("unusable", text))
    # A clip of a data set is never cut to its fan, so that a ventricle in its place is enough.
    elif not has_fan and (is_other_view is None or not is_data_set_clip(*video.frames.shape[1:])):
        findings.append(Finding("doubtful", "No ultrasound fan was found in the picture."))
    findings += _beat_findings(video, spec, outline)
    rate = f"The clip has {video.fps:.3g} frames per second; below"
    if video.fps < _SLOWEST_FPS:
        findings.append(Finding("unusable", f"{rate} {_SLOWEST_FPS:.3g} a heart beat may have fewer than two frames."))
    elif video.fps < _LOWEST_FPS:
        missed = "the smallest and largest volume of a beat may be missed"
        findings.append(Finding("doubtful", f"{rate} {_LOWEST_FPS:g} {missed}."))
    if has_fan and is_other_view:
        findings.append(Finding("doubtful", "No left ventricle was outlined as an apical four-chamber view shows it."))
    return tuple(findings)


def _beat_findings(video: EchoVideo, spec: ClipSpec, outline: Any) -> list[Finding]:
    """Whether a clip may hold, or by its outline does hold, a whole beat."""
    seconds, looked_at = video.duration_seconds, spec.span(video.fps) / video.fps
    has_no_beat = outline is not None and not outline.is_other_view and not outline.beats
    if seconds < _SHORTEST_BEAT:
        return [Finding("unusable", f"The clip lasts {seconds:.2f} s, too short for a whole heart beat.")]
    if video.num_frames < spec.span(video.fps):
        text = f"The clip lasts {seconds:.2f} s, less than the {looked_at:.1f} s that the model looks at"
        if has_no_beat and not outline.has_both_ends:
            return [Finding("unusable", f"{text}, and its outline shows half a heart beat at most.")]
        rest = "blank" if spec.short_videos == "zeros" else "filled up from it"
        return [Finding("doubtful", f"{text}; it may not hold a whole heart beat, and the rest is {rest}.")]
    return [Finding("doubtful", "The outline of the ventricle shows no whole heart beat.")] if has_no_beat else []


def inspect_estimate(clip_ejection_fractions: NDArray[np.float64], unlikeness: float | None) -> tuple[Finding, ...]:
    """Look for what the model's own numbers say against an estimate.

    Args:
        clip_ejection_fractions: EF of every clip in percent, shape (clips,).
        unlikeness: Distance of the video from the training distribution over the limit, which 99 % of usual videos
            keep; `None` for a model that does not know its distribution.

    Returns:
        Findings.
    """
    findings = []
    spread = float(np.std(clip_ejection_fractions))
    if spread > _CLIP_SD:
        findings.append(Finding("doubtful", f"The clips of this video disagree, by {spread:.0f} EF points."))
    if unlikeness is not None and unlikeness > 1:
        text = f"not like those of the training: its distance from them is {unlikeness:.1f} times the limit."
        findings.append(Finding("unusable" if unlikeness > _FAR else "doubtful", f"The video is {text}"))
    return tuple(findings)


def inspect_outline(
    ejection_fraction: float, interval: tuple[float, float] | None, outline: Any
) -> tuple[Finding, ...]:
    """Look for what the outline of the ventricle says against an estimate.

    Two readings disagree if they differ by more than the root of the sum of their squared errors: the distance from
    the estimate to that end of its interval on which the other reading lies, and the error of the outline.

    Args:
        ejection_fraction: The model's estimate in percent.
        interval: Interval of the estimate in percent; without one, readings are not compared.
        outline: `VideoOutline` of the video, with its `ejection_fraction` and its own error, `ef_error`.

    Returns:
        Findings: two readings that disagree.
    """
    other = outline.ejection_fraction
    if interval is None or outline.is_other_view or outline.ef_error is None or math.isnan(other - ejection_fraction):
        return ()
    end = interval[0] if other < ejection_fraction else interval[1]
    if abs(other - ejection_fraction) <= math.hypot(end - ejection_fraction, outline.ef_error):
        return ()
    text = f"Two readings disagree: {ejection_fraction:.0f} % by the estimate, {other:.0f} % by the outline of the "
    return (Finding("doubtful", f"{text}ventricle."),)


def overall_quality(findings: Iterable[Finding]) -> Quality:
    """Name the quality of an estimate: that of the most serious finding, `"good"` without any."""
    found = {finding.quality for finding in findings}
    return "unusable" if "unusable" in found else "doubtful" if found else "good"
