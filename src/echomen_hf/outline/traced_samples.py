"""Moments of a data set's videos with the mask that somebody traced."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.layouts.tables import LayoutError
from ..data.tracings import Tracing
from ..model.echo_video_echomen import EchoVideo
from ..model.sector_echomen import find_sector
from ..model.video_reading_echomen import read_video
from .outliner import FRAME_OFFSETS, neighbours
from .picture_square import PictureSquare
from .samples import Sample


__all__ = ["TracedSamples", "read_traced_video"]


class TracedSamples:
    """Samples of the traced frames of a data set; a recording is a video.

    Args:
        tracings: Tracings, those of one video after each other, as `read_tracings` gives them.
        image_size: Height and width in pixels.
        frame_offsets: Moments that the network sees, see `LeftVentricleOutlinerConfig`.
    """

    def __init__(
        self,
        tracings: Sequence[Tracing],
        image_size: int = 112,
        frame_offsets: Sequence[float] = FRAME_OFFSETS,
    ) -> None:
        self.videos = [list(group) for _, group in itertools.groupby(tracings, lambda tracing: tracing.video)]
        self.image_size = image_size
        self.frame_offsets = frame_offsets

    @property
    def num_recordings(self) -> int:
        """Number of videos."""
        return len(self.videos)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples; names and outlines as a hash."""
        digest = hashlib.sha256()
        for tracing in itertools.chain(*self.videos):
            outline = tracing.outline.tobytes() if isinstance(tracing.outline, np.ndarray) else tracing.outline.name
            digest.update(f"{tracing.file_name} {tracing.frame} {outline!r}\n".encode())
        return {
            "tracings": digest.hexdigest(),
            "image_size": self.image_size,
            "frame_offsets": list(self.frame_offsets),
        }

    def recording(self, index: int) -> list[Sample]:
        """Read the traced moments of the video with this number, from 0."""
        tracings = self.videos[index]
        video = read_traced_video(tracings)
        size, square = self.image_size, PictureSquare.of(video.frames, find_sector(video.frames))
        order = neighbours(
            np.array([tracing.frame for tracing in tracings]), video.num_frames, video.fps, self.frame_offsets
        )
        masks = np.stack([tracing.mask(*video.frames.shape[1:]) for tracing in tracings])
        shown = square.cut_out(masks.astype(np.uint8) * np.uint8(255), size) > 127
        return [
            Sample(square.cut_out(video.frames[numbers], size), mask)
            for numbers, mask in zip(order, shown, strict=True)
        ]


def read_traced_video(tracings: Sequence[Tracing]) -> EchoVideo:
    """Read the video of some tracings, and check that it has their frames."""
    video = read_video(tracings[0].video, measure_colour=False)
    for tracing in tracings:
        if not 0 <= tracing.frame < video.num_frames:
            raise LayoutError(
                f"{tracing.file_name} has {video.num_frames} frames, and frame {tracing.frame} of it is traced; copy "
                "the video again."
            )
    return video
