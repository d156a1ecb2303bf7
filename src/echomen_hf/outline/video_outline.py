"""Outline of the left ventricle in a video, and what it says: volumes, beats, ejection fraction."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..model.echo_video_echomen import EchoVideo, require_moving, with_fan
from ..model.heart_failure_category_echomen import within_ef_range
from ..model.sector_echomen import Sector
from ..model.video_reading_echomen import read_video
from ..model.video_source_echomen import VideoSource
from .measurements import VolumeMethod, Volumes, clean_masks, measure_volumes, smooth_volumes
from .outliner import LeftVentricleOutliner, load_outliner


if TYPE_CHECKING:
    from .beats import Beat

__all__ = ["Outliner", "VideoOutline", "outline_video", "shows_other_view"]

_MANY = 0.2  # share of the frames
_ROUND = 1.38  # length squared over area: 1.27 for a circle, 1.43 for the roundest of simulated ventricles
_RESTLESS = 0.04  # of the volume
_HARDLY = 0.03  # likewise
_BEAT_SD = 10.0  # EF points, as for the clips of EchoMEN
_EDGE = 0.04  # seconds
_LOOKS = 5  # frames that tell a view; with 16, simulated recordings were taken for the same


class Outliner(Protocol):
    """What marks the left ventricle in the frames of a video, such as `LeftVentricleOutliner`."""

    config: Any

    def predict_masks(
        self, frames: NDArray[np.uint8], fps: float, *, sector: Sector | None = None
    ) -> NDArray[np.bool_]:
        """From frames, uint8, to masks, bool, both of shape (T, H, W)."""


@dataclass(frozen=True)
class VideoOutline:
    """Outline of the left ventricle in a video, and the reading of its ejection fraction that follows from it.

    Args:
        video: The video as it was read; of a DICOM file the whole picture, if that shows a fan.
        sector: Where the ultrasound fan is in it.
        masks: Pixels of the left ventricle in the video's own frames, bool, shape (frames, height, width); none in a
            frame without a ventricle.
        volumes: Smooth volume curve, float64, shape (frames,); NaN where no ventricle was found.
        unit: `"mL"` if the file states how large a pixel is, else `"1000 px^3"`.
        beats: Heart beats that lie inside the video.
        reasons: What speaks against the reading, or why there is none, a sentence each.
        is_other_view: Whether the picture must be taken for something else than an apical view of the left ventricle.
        ef_error: Error in EF points that 90 % of readings do not exceed, from the outliner's configuration; `None` if
            nobody measured it.
    """

    video: EchoVideo
    sector: Sector
    masks: NDArray[np.bool_]
    volumes: NDArray[np.float64]
    unit: str
    beats: tuple[Beat, ...]
    reasons: tuple[str, ...] = ()
    is_other_view: bool = False
    ef_error: float | None = None

    @property
    def ejection_fraction(self) -> float:
        """Mean ejection fraction of the beats in percent; NaN without a beat."""
        return float(np.mean([beat.ejection_fraction for beat in self.beats])) if self.beats else math.nan

    @property
    def beat_sd(self) -> float:
        """Standard deviation of the ejection fractions of the beats; NaN for less than two."""
        values = [beat.ejection_fraction for beat in self.beats]
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """Interval that holds the ejection fraction of 90 % of hearts; `None` without a measured error."""
        if self.ef_error is None or not self.beats:
            return None
        low, high = within_ef_range(np.array([-self.ef_error, self.ef_error]) + self.ejection_fraction)
        return float(low), float(high)

    @property
    def has_both_ends(self) -> bool:
        """Whether the largest and the smallest volume lie inside the video, and not where it begins or ends."""
        known = np.flatnonzero(np.isfinite(self.volumes))
        if not known.size:
            return False
        margin, volumes = max(1, round(_EDGE * self.video.fps)), self.volumes[known]
        moments = known[[volumes.argmin(), volumes.argmax()]]
        return bool((moments >= margin).all() and (moments < len(self.volumes) - margin).all())

    @property
    def heart_rate(self) -> float:
        """Beats a minute, from the end systoles; NaN for less than two beats."""
        if len(self.beats) < 2:
            return math.nan
        frames = self.beats[-1].es_frame - self.beats[0].es_frame
        return 60 * self.video.fps * (len(self.beats) - 1) / frames


def outline_video(
    source: VideoSource | EchoVideo, outliner: Outliner | None = None, *, method: VolumeMethod = "disks"
) -> VideoOutline:
    """Outline the left ventricle in every frame of a video, and measure volumes and beats.

    Args:
        source: Video, see `read_video`, or one that is decoded already.
        outliner: What marks the ventricle. Defaults to the network that comes with the package, which was trained on
            simulated hearts only.
        method: How an outline becomes a volume: `"disks"` (20 disks) or `"area_length"`.

    Returns:
        Masks, volumes, beats and ejection fraction. Where something is not there, such as a ventricle or a whole beat,
        `reasons` says so, and nothing is made up in its place.

    Raises:
        VideoReadError: If the file cannot be read, or is a still image.

    Example:
    ```python
    >>> from echomen_hf.outline import outline_video
    >>> from echomen_hf.model.echo_video_echomen import EchoVideo
    >>> from echomen_hf.simulation import simulate_echo

    >>> echo = simulate_echo(0, 60.0, num_frames=100)
    >>> outline = outline_video(EchoVideo(echo.frames, echo.fps, "simulated"))
    >>> outline.masks.shape
    (100, 112, 112)
    ```
    """
    from .beats import find_beats  # with scipy.signal, which takes most of a second

    video = require_moving(source if isinstance(source, EchoVideo) else read_video(source))
    outliner = outliner or _packaged_outliner()
    video, sector = _with_fan(video)
    masks = clean_masks(outliner.predict_masks(video.frames, video.fps, sector=sector))
    found = measure_volumes(masks, video.mm_per_pixel, method)
    masks[found.is_small] = False
    volumes, beats = smooth_volumes(found.volumes, video.fps), find_beats(found.volumes, video.fps)
    return VideoOutline(
        video=video,
        sector=sector,
        masks=masks,
        volumes=volumes,
        unit=found.unit,
        beats=beats,
        reasons=tuple(_reasons(found, volumes, beats, video.fps)),
        is_other_view=_is_other_view(found),
        ef_error=getattr(outliner.config, "ef_error_quantile", None),
    )


def shows_other_view(video: EchoVideo, outliner: LeftVentricleOutliner | None = None) -> bool:
    """Whether a video must be taken for something else than an apical view of the left ventricle, by a few frames.

    Args:
        video: Grayscale video, whose fan has been cut out or not.
        outliner: What marks the ventricle. Defaults to the network that comes with the package.

    Returns:
        Whether some of the frames hold no left ventricle, or one that is too round.
    """
    outliner = outliner or _packaged_outliner()
    video, sector = _with_fan(require_moving(video))
    numbers = np.linspace(0, video.num_frames - 1, min(video.num_frames, _LOOKS)).round().astype(np.int64)
    masks = clean_masks(outliner.predict_masks(video.frames, video.fps, sector=sector, numbers=numbers))
    return _is_other_view(measure_volumes(masks))


@functools.cache
def _packaged_outliner() -> LeftVentricleOutliner:
    """Read from its file once, however many videos are outlined."""
    return load_outliner()


def _with_fan(video: EchoVideo) -> tuple[EchoVideo, Sector]:
    if video.sector is None:
        return with_fan(video)
    # Frames that were cut out show the fan alone.
    height, width = video.frames.shape[1:]
    return video, Sector((0, 0, width, height), "none" if video.sector.shape == "none" else "cropped")


def _is_other_view(found: Volumes) -> bool:
    return bool(found.is_small.mean() > _MANY or np.nanmedian(found.elongation) < _ROUND)


def _reasons(found: Volumes, volumes: NDArray[np.float64], beats: tuple[Beat, ...], fps: float) -> Iterator[str]:
    """Say what speaks against a reading, or why there is none."""
    if found.is_small.all():
        yield "No left ventricle was found."
        return
    if (share := found.is_small.mean()) > _MANY:
        yield f"In {share:.0%} of the frames no left ventricle was found."
    if (share := found.is_cut.sum() / (~found.is_small).sum()) > _MANY:
        yield f"The outline touches the border of the picture in {share:.0%} of its frames; some of it may be missing."
    if np.nanmedian(found.elongation) < _ROUND:
        yield "What was outlined is rounder than a left ventricle from the apex; this may be another view."
    if np.nanmedian(np.abs(found.volumes - volumes) / volumes) > _RESTLESS:
        yield "The outline jumps from frame to frame."
    if not beats:
        change = np.ptp(volumes[np.isfinite(volumes)]) / np.nanmax(volumes)
        seconds = len(volumes) / fps
        yield (
            f"The volume changes by {change:.0%} only, so no beat can be told."
            if change < _HARDLY
            else f"No whole beat was found in {seconds:.1f} s: it begins before the heart contracts and ends after it "
            "has begun to fill again."
        )
    elif len(beats) == 1:
        yield "There is only one whole beat, so nothing is known of how beats differ."
    elif (spread := np.std([beat.ejection_fraction for beat in beats], ddof=1)) > _BEAT_SD:
        yield f"The beats disagree, by {spread:.0f} EF points."
