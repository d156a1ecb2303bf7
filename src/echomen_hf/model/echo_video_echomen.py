"""Decoded clips and the rules that every reader shares."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import COLOURED_SHARE, largest_share
from .moving_region_echomen import Box
from .sector_echomen import Sector, find_sector
from .video_source_echomen import VideoReadError


__all__ = [
    "DEFAULT_FPS",
    "MAX_FRAME_PIXELS",
    "DecodedVideo",
    "EchoVideo",
    "VideoInfo",
    "cut_out_sector",
    "even_rate",
    "is_usable_fps",
    "require_frame_size",
    "require_moving",
    "usable_fps",
    "warn_if_coloured",
    "with_fan",
]

DEFAULT_FPS = 50.0
"""Frame rate assumed where a file states none, in frames per second: that of 79 % of EchoNet-Dynamic."""

MAX_FRAME_PIXELS = 2**23
"""Most pixels of one frame, which is enough for 4K video. Larger ones are refused before they are decoded."""

_MAX_SIDE = 8192  # pixels
_FPS_RANGE = (1.0, 1000.0)  # 1000 itself is what a time base of milliseconds looks like
_RATE_TOLERANCE = 0.02  # between a header and time stamps that are rounded to milliseconds
_STEP_TOLERANCE = 0.1  # of the usual time between frames
_UNSTEADY_SHARE = 0.1  # of the frames of a clip with a constant rate, which follow gaps; one may in any clip


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
        coloured_share: Share of the picture, or of the fan that was cut out of it, that is coloured: the largest of
            the frames that were looked at; NaN if it was not measured.
        sector: Where the ultrasound fan was found in the frames of the file, which are then those of the fan alone;
            `None` if nobody looked for it.
        mm_per_pixel: Height and width of a pixel in mm; `None` if the file does not state it, or states what no echo
            machine shows.
        whole: The whole picture, uint8, of which `frames` are the part that a DICOM file says is to be kept; `None` if
            they are all of it.
        region: Left, top, right and bottom of the ultrasound region that a DICOM file names, in the whole picture.
        coloured_cells: Cells of the whole picture that are coloured in some of its frames, shape (K, rows, columns),
            from which the share of a fan is known; `None` if nobody needs it any more.
    """

    frames: NDArray[np.uint8]
    fps: float
    source: str
    coloured_share: float = 0.0
    sector: Sector | None = None
    mm_per_pixel: float | None = None
    whole: NDArray[np.uint8] | None = None
    region: Box | None = None
    coloured_cells: NDArray[np.bool_] | None = None

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


class DecodedVideo(NamedTuple):
    """Frames of a file, uint8, shape (T, H, W), the frame rate that it states, and its cells that are coloured."""

    frames: NDArray[np.uint8]
    fps: float | None
    coloured_cells: NDArray[np.bool_] | None

    @property
    def coloured_share(self) -> float:
        """Largest share of a frame that is coloured; NaN if it was not measured."""
        return float("nan") if self.coloured_cells is None else largest_share(self.coloured_cells)


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


def with_fan(video: EchoVideo, sector: Sector | None = None) -> tuple[EchoVideo, Sector]:
    """Find the ultrasound fan in the whole picture; the region that a file names may be wrong, and is only a hint.

    Args:
        video: Video as it was read.
        sector: Where the fan is, if that is known already.

    Returns:
        The video whose frames show the fan, which are those of the whole picture if there is one in it, and the fan.
    """
    picture = video.frames if video.whole is None else video.whole
    if sector is None:
        sector = find_sector(picture, video.region)
    frames = video.frames if sector.shape == "none" else picture
    return replace(video, frames=frames, whole=None, region=None), sector


def cut_out_sector(video: EchoVideo, sector: Sector | None = None) -> EchoVideo:
    """Find the ultrasound fan in a whole video, and cut it out of a screen; `sector` says where it was."""
    shown, sector = with_fan(video, sector)
    share, cells = shown.coloured_share, shown.coloured_cells
    if sector.shape == "fan" and cells is not None and cells.any():
        share = largest_share(cells, sector.covered(cells.shape[1:], shown.frames.shape[1:]))
    frames = sector.crop(shown.frames)
    return replace(shown, frames=frames, sector=sector, coloured_share=share, coloured_cells=None)


def warn_if_coloured(video: EchoVideo) -> EchoVideo:
    """Warn of a clip in colour, which the model sees in gray but was not trained on."""
    if video.is_coloured:
        warnings.warn(
            f"{video.source}: {video.coloured_share:.0%} of the picture is coloured, as in colour Doppler; the model "
            "was trained on grayscale (B-mode) clips, so its estimate is not to be relied on.",
            stacklevel=2,
        )
    return video


def require_frame_size(height: int, width: int, name: str) -> None:
    """Refuse frames that no echo machine makes, before memory is taken for them."""
    if max(height, width) > _MAX_SIDE or height * width > MAX_FRAME_PIXELS:
        raise VideoReadError.about(
            name,
            f"has frames of {width} x {height} pixels; at most {_MAX_SIDE} a side, {MAX_FRAME_PIXELS} in all",
            "export it at its acquired size",
        )


def is_usable_fps(fps: float | None) -> bool:
    """Whether a frame rate is stated and believable."""
    return fps is not None and _FPS_RANGE[0] <= fps < _FPS_RANGE[1]


def usable_fps(fps: float | None, name: str, default_fps: float | None) -> float:
    """Replace a missing or unbelievable frame rate by `default_fps` with a warning; raise if that is `None`."""
    if fps is not None and is_usable_fps(fps):
        return fps
    problem = "states no frame rate" if not fps else f"states an unbelievable frame rate of {fps:g} per second"
    if default_fps is None:
        raise VideoReadError.about(name, problem, "export it again with its frame rate, or pass default_fps")
    warnings.warn(f"{name}: {problem}; assuming {default_fps:g} frames per second.", stacklevel=2)
    return default_fps


def even_rate(
    times: NDArray[np.float64], stated_fps: float | None, name: str, tick: float = 0.0
) -> tuple[float | None, NDArray[np.int64] | None]:
    """Frame rate by time stamps, and which frame is shown at every even step of a clip with a variable rate.

    A steady clip keeps its frames: gaps, as a pause of the recording, do not change the rate, but long ones are warned
    of. A variable rate becomes the mean rate, at which the same number of frames is taken evenly from the clip.

    Args:
        times: Ascending time stamps in seconds.
        stated_fps: Frame rate of the header, preferred where the time stamps agree with it.
        name: File name for messages.
        tick: Seconds to which time stamps are rounded.
    """
    steps = np.diff(times)
    if len(steps) == 0 or times[-1] <= times[0]:
        return stated_fps, None
    usual = float(np.partition(steps, len(steps) // 2)[len(steps) // 2])  # a fifth of the time of `np.median`
    steady = np.abs(steps - usual) <= max(_STEP_TOLERANCE * usual, 1.01 * tick)
    if usual > 0 and (~steady).sum() <= max(len(steps) > 2, _UNSTEADY_SHARE * len(steps)):
        measured = 1 / float(steps[steady].mean())
        gaps = float((steps[~steady] - usual).clip(0).sum())
        if gaps > _STEP_TOLERANCE * (times[-1] - times[0]):
            warnings.warn(f"{name}: its time stamps have gaps of {gaps:.2g} s, which are left out.", stacklevel=2)
        if stated_fps and abs(stated_fps / measured - 1) <= _RATE_TOLERANCE:
            measured = stated_fps
        return measured, None
    fps = len(steps) / float(times[-1] - times[0])
    warnings.warn(
        f"{name}: its frame rate varies; its frames are resampled evenly at the mean rate of {fps:.1f} per second.",
        stacklevel=2,
    )
    middles = (times[1:] + times[:-1]) / 2
    even = times[0] + np.arange(len(times)) / fps
    return fps, np.searchsorted(middles, even, side="left").astype(np.int64)
