"""Heart beats in a volume curve: end diastole, end systole and ejection fraction of each, in any rhythm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ..simulation.anatomy import ejection_fraction
from .measurements import smooth_volumes


__all__ = ["Beat", "find_beats"]

_SHORTEST_BEAT = 0.27  # seconds; 220 beats a minute
_SMALLEST_STROKE = 0.03  # of the largest volume; outlines of a still picture change less
_WEAK_STROKE = 0.08  # below it only what comes back regularly is a beat
_PROMINENCE = 0.3  # of the usual change of volume; the small dip before the atria contract is no systole
_NOISE_FACTOR = 4.0
_PERIODS = (0.27, 2.0)  # seconds
_REGULAR = 0.5  # correlation of a curve with itself a beat later
_ONSET, _END = 0.1, 0.9  # of the stroke
_SEARCHED = 0.1  # seconds from there
_PLATEAU = 0.02  # of the stroke
_AT_REST = 0.4  # of the fastest ejection


@dataclass(frozen=True)
class Beat:
    """One heart beat, from end diastole to end systole.

    Args:
        ed_frame: Frame of end diastole.
        es_frame: Frame of end systole.
        edv: End-diastolic volume, in the unit of the curve.
        esv: End-systolic volume.
    """

    ed_frame: int
    es_frame: int
    edv: float
    esv: float

    @property
    def ejection_fraction(self) -> float:
        """Ejection fraction in percent."""
        return ejection_fraction(self.edv, self.esv)


def find_beats(volumes: NDArray[np.float64], fps: float) -> tuple[Beat, ...]:
    """Find the beats of a volume curve, which is made smooth first.

    End systoles are the troughs of the curve that are deep in comparison with the others and with noise, whatever the
    time between them. End diastole is the last large volume before the ventricle contracts, and not just any of a long
    diastole. A beat counts only if both lie inside the clip: the contraction begins after the first frame, and the
    ventricle fills again before the last. Where the volume changes little, only a change that comes back is a beat.

    Args:
        volumes: Volume of every frame, NaN where unknown, shape (T,).
        fps: Frames per second.

    Returns:
        Beats in order; none if the volume hardly changes.
    """
    smooth = smooth_volumes(volumes, fps)
    known = np.isfinite(smooth)
    if known.sum() < 5:
        return ()
    low, high = np.quantile(smooth[known], [0.02, 0.98])
    noise = np.nanstd(volumes - smooth)
    prominence = max(_PROMINENCE * (high - low), _SMALLEST_STROKE * high, _NOISE_FACTOR * noise)
    beats = []
    for (part,) in ndimage.find_objects(ndimage.label(known)[0]):
        if high - low < _WEAK_STROKE * high and not _is_regular(smooth[part], fps):
            continue
        for ed, es in _beats_of_part(smooth[part], fps, prominence):
            edv, esv = float(smooth[part][ed]), float(smooth[part][es])
            beats.append(Beat(part.start + ed, part.start + es, edv, esv))
    return tuple(beats)


def _beats_of_part(volumes: NDArray[np.float64], fps: float, prominence: float) -> list[tuple[int, int]]:
    """Frames of end diastole and end systole of a part of the curve without gaps."""
    distance = max(1.0, fps * _SHORTEST_BEAT)
    troughs, _ = signal.find_peaks(-volumes, distance=distance, prominence=prominence)
    found = []
    for before, trough in zip([0, *troughs[:-1]], troughs):
        top = before + int(np.argmax(volumes[before : trough + 1]))
        edges = _edges_of_systole(volumes, top, int(trough), fps)
        if edges is not None:
            found.append(edges)
    return found


def _is_regular(volumes: NDArray[np.float64], fps: float) -> bool:
    """Whether the curve comes back after some time, by its correlation with itself."""
    lags = range(max(1, int(_PERIODS[0] * fps)), min(int(_PERIODS[1] * fps), len(volumes) // 2) + 1)
    alike = [np.corrcoef(volumes[lag:], volumes[:-lag])[0, 1] for lag in lags]
    return len(alike) > 2 and len(signal.find_peaks(alike, height=_REGULAR)[0]) > 0


def _edges_of_systole(volumes: NDArray[np.float64], top: int, trough: int, fps: float) -> tuple[int, int] | None:
    """Frames of the largest volume just before the contraction and of the smallest just after it."""
    high, low = volumes[top], volumes[trough]  # of this beat
    falling = volumes[top : trough + 1]
    # The last frame that is still nearly full, and the first after it that is nearly empty.
    onset = top + int(np.flatnonzero(falling >= high - _ONSET * (high - low))[-1])
    empty = onset + int(np.flatnonzero(volumes[onset : trough + 1] <= high - _END * (high - low))[0])
    searched = max(1, round(_SEARCHED * fps))
    ed = max(top, onset - searched)
    nearly_full = volumes[ed : onset + 1].max() - _PLATEAU * (high - low)
    ed += int(np.flatnonzero(volumes[ed : onset + 1] >= nearly_full)[-1])
    end = min(empty + searched, trough)
    es = empty + int(np.argmin(volumes[empty : end + 1]))
    speed = -np.diff(volumes[ed : es + 1])
    if es - ed < 2 or (ed == 0 and speed[0] > _AT_REST * speed.max()):
        return None
    return int(ed), int(es)
