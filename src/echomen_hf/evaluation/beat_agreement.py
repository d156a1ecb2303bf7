"""Agreement of the beats and ejection fractions that two outlines of one video give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..outline.beats import find_beats
from ..outline.measurements import clean_masks, measure_volumes
from ..simulation.anatomy import ejection_fraction


__all__ = ["BeatAgreement", "TracedAgreement"]

_SAME_BEAT = 0.15  # seconds between its end systoles
_CLOSE = 0.06  # seconds


@dataclass
class BeatAgreement:
    """Errors of the beats by an outliner's masks, measured against those by exact masks, over any number of videos.

    Both go the same way from masks to beats, so the errors are those of the outlines.
    """

    times: list[tuple[float, float]] = field(default_factory=list)  # seconds too late, of end diastole and end systole
    beat_errors: list[float] = field(default_factory=list)  # EF points
    video_errors: list[float] = field(default_factory=list)  # likewise, of the mean of a video's beats
    num_beats: int = 0
    num_invented: int = 0
    num_videos: int = 0

    def add(self, masks: NDArray[np.bool_], exact: NDArray[np.bool_], fps: float) -> None:
        """Compare the masks of a video, bool, shape (T, H, W), with exact ones."""
        found, beats = (find_beats(measure_volumes(clean_masks(each)).volumes, fps) for each in (masks, exact))
        if not beats:
            return
        self.num_videos += 1
        self.num_beats += len(beats)
        near = [min(found, key=lambda each: abs(each.es_frame - beat.es_frame), default=None) for beat in beats]
        for beat, other in zip(beats, near):
            if other is not None and abs(other.es_frame - beat.es_frame) <= _SAME_BEAT * fps:
                late = (other.ed_frame - beat.ed_frame) / fps, (other.es_frame - beat.es_frame) / fps
                self.times.append(late)
                self.beat_errors.append(other.ejection_fraction - beat.ejection_fraction)
        distances = [min(abs(each.es_frame - beat.es_frame) for beat in beats) for each in found]
        self.num_invented += sum(distance > _SAME_BEAT * fps for distance in distances)
        if found:
            means = [np.mean([each.ejection_fraction for each in beats_of]) for beats_of in (found, beats)]
            self.video_errors.append(float(means[0] - means[1]))

    def summary(self) -> Mapping[str, Any]:
        """Shares of beats and errors; errors are NaN if no beat was found."""
        times, errors = np.abs(self.times).reshape(-1, 2), np.array(self.beat_errors)
        videos = np.array(self.video_errors)
        return {
            "num_beats": self.num_beats,
            "share_found": len(self.times) / max(self.num_beats, 1),
            "invented_per_beat": self.num_invented / max(self.num_beats, 1),
            "end_diastole_within_60_ms": _mean(times[:, 0] <= _CLOSE),
            "end_systole_within_60_ms": _mean(times[:, 1] <= _CLOSE),
            "beat_ef_mae": _mean(np.abs(errors)),
            "beat_ef_bias": _mean(errors),
            "video_ef_mae": _mean(np.abs(videos)),
            "video_ef_error_quantile": float(np.quantile(np.abs(videos), 0.9)) if len(videos) else float("nan"),
            "share_of_videos_with_beats": len(videos) / max(self.num_videos, 1),
        }


@dataclass
class TracedAgreement:
    """Errors in EF points of an outliner's masks against the two traced frames of videos."""

    same_frames: list[float] = field(default_factory=list)  # from the outlines of these frames
    beats: list[float] = field(default_factory=list)  # of the mean of a video's beats

    def add(self, masks: NDArray[np.bool_], traced: NDArray[np.bool_], frames: Sequence[int], fps: float) -> None:
        """Compare the masks of a video, (T, H, W), with those traced at end diastole and end systole, (2, H, W)."""
        cleaned = clean_masks(masks)
        true = ejection_fraction(*measure_volumes(traced).volumes)
        volumes = measure_volumes(cleaned).volumes
        self.same_frames.append(ejection_fraction(*volumes[list(frames)]) - true)
        beats = [beat.ejection_fraction for beat in find_beats(volumes, fps)]
        self.beats.append(float(np.mean(beats)) - true if beats else np.nan)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Errors of the videos that have one; NaN if none has."""
        return {"same_frames": _errors(self.same_frames), "beats": _errors(self.beats)}


def _errors(values: Sequence[float]) -> dict[str, Any]:
    known = np.array(values)[np.isfinite(values)]
    return {"num_videos": len(known), "mae": _mean(np.abs(known)), "bias": _mean(known)}


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")
