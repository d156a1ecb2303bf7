"""Moments of simulated recordings with the exact mask of the left ventricle."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.tracings import polygon_mask
from ..model.sector_echomen import find_sector
from ..simulation.echo import sample_echo_parameters, simulate_echo
from ..simulation.exports import export_clip, sample_export_settings
from ..simulation.fans import bounding_box, fan_mask, whole_fan_parameters
from ..simulation.other_recordings import OtherRecording, simulate_other_recording
from ..simulation.simulated_videos import SimulatedVideos
from .outliner import FRAME_OFFSETS, neighbours
from .picture_square import PictureSquare
from .samples import Sample


__all__ = ["SimulatedSamples", "on_screen"]

_OTHERS: dict[OtherRecording, float] = {
    "short_axis": 0.25,
    "long_axis": 0.25,
    "lung": 0.12,
    "m_mode": 0.1,
    "spectral_doppler": 0.1,
    "noise": 0.06,
    "moving_shapes": 0.06,
    "scrolling_text": 0.06,
}
_LARGEST_SCREEN = 800  # pixels; larger ones only cost time, since all are shown at the network's size


@dataclasses.dataclass(frozen=True)
class SimulatedSamples:
    """Recordings that exist only as seeds, some moments of each.

    Recording i depends on the settings and i only. Weak and strong hearts are equally frequent.

    Args:
        num_recordings: Number of recordings.
        seed: Seed.
        profile: Ranges of patients and machines.
        image_size: Height and width in pixels.
        frame_offsets: Moments that the network sees, see `LeftVentricleOutlinerConfig`.
        moments: Moments of every recording.
        other_share: Share of the recordings that show no apical four-chamber view; their masks are empty.
        export_share: Share of the recordings that are shown on a screen, where the fan is found and cut out.
        whole_fan_share: Share of the recordings that show the fan from tip to end, as it is cut out of a screen.
    """

    num_recordings: int
    seed: int = 0
    profile: str = "wide"
    image_size: int = 112
    frame_offsets: Sequence[float] = FRAME_OFFSETS
    moments: int = 4
    other_share: float = 0.12
    export_share: float = 0.15
    whole_fan_share: float = 0.2

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples."""
        return {**dataclasses.asdict(self), "frame_offsets": list(self.frame_offsets)}

    def recording(self, index: int) -> list[Sample]:
        """Simulate the moments of the recording with this number, from 0."""
        rng = np.random.default_rng([self.seed, index, 6])
        kind = rng.random()
        if kind < self.other_share:
            return self._other(rng, index)
        row = SimulatedVideos(self.num_recordings, self.seed).row(index)
        texture = np.random.default_rng(row["seed"])
        parameters = sample_echo_parameters(
            texture, row["ejection_fraction"], row["num_frames"], row["fps"], self.profile
        )
        beat = simulate_echo(copy.deepcopy(texture), parameters=parameters, render=False)
        ends = [beat.end_diastolic_frame, beat.end_systolic_frame]
        order = self._moments(rng, row["num_frames"], row["fps"], ends)
        numbers, places = np.unique(order, return_inverse=True)
        size, square = self.image_size, PictureSquare(0, 0, self.image_size)
        is_export = kind < self.other_share + self.export_share
        if is_export or kind < self.other_share + self.export_share + self.whole_fan_share:
            parameters, size, (left, top, right, _) = whole_fan_parameters(parameters, self.image_size)
            square = PictureSquare(left, top, right - left)
        echo = simulate_echo(texture, parameters=parameters, image_size=size, frames=numbers)
        frames, outlines = echo.frames, echo.outlines
        if is_export:
            frames, outlines = on_screen(rng, frames, outlines, fan_mask(parameters, size), row["fps"])
            square = PictureSquare.of(frames, find_sector(frames))
        shown = square.cut_out(frames, self.image_size)[places]  # (moments, offsets, S, S)
        middle = list(self.frame_offsets).index(0.0)
        corners = square.points_in(outlines, self.image_size)[places[:, middle]]
        return [
            Sample(images, polygon_mask(points, self.image_size, self.image_size))
            for images, points in zip(shown, corners, strict=True)
        ]

    def _moments(
        self, rng: np.random.Generator, num_frames: int, fps: float, first: Sequence[int] = ()
    ) -> NDArray[np.int64]:
        """Numbers of the frames, `(moments, offsets)`: the first ones and others at random."""
        frames = np.array([*first, *rng.integers(0, num_frames, self.moments)])[: self.moments]
        return neighbours(frames, num_frames, fps, self.frame_offsets)

    def _other(self, rng: np.random.Generator, index: int) -> list[Sample]:
        kind = list(_OTHERS)[rng.choice(len(_OTHERS), p=list(_OTHERS.values()))]
        fps, num_frames = float(rng.integers(25, 91)), 40
        seed = int(np.random.default_rng([self.seed, index, 7]).integers(2**31))
        frames = simulate_other_recording(kind, seed, num_frames, fps, self.image_size, self.profile)
        empty = np.zeros((self.image_size, self.image_size), dtype=bool)
        return [Sample(images, empty) for images in frames[self._moments(rng, num_frames, fps)]]


def on_screen(
    rng: np.random.Generator,
    frames: NDArray[np.uint8],
    outlines: NDArray[np.float64],
    mask: NDArray[np.bool_],
    fps: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Show a clip of a whole fan, whose pixels are `mask`, and its outlines on a screen at random."""
    settings = sample_export_settings(rng)
    shrink = min(1.0, _LARGEST_SCREEN / settings.width)
    width, height = (round(shrink * side / 2) * 2 for side in (settings.width, settings.height))
    settings = dataclasses.replace(
        settings, width=width, height=height, overhang=0.0, codec="jpeg", fan_height=max(settings.fan_height, 0.45)
    )
    export = export_clip(frames, fps, settings, mask)
    left, top, right, bottom = bounding_box(mask)
    scale = (export.box[2] - export.box[0]) / (right - left), (export.box[3] - export.box[1]) / (bottom - top)
    return export.frames, (outlines + 0.5 - (left, top)) * scale + export.box[:2] - 0.5
