"""Video processor and training clips of UVT: one beat played back and forth, with the phase of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.processing_utils import Unpack

from ...data.clip_dataset import FrameSource, TrainingClips, video_length_and_rate
from ...data.layouts.echonet_dynamic import TRACINGS_NAME, VolumeTracing, read_volume_tracings
from ...data.layouts.tables import has_columns
from ...model.clip_sampling_echomen import ClipSpec
from ...model.video_processing_echomen import EchoMENVideoProcessor, EchoMENVideosKwargs


__all__ = ["RepeatedFrames", "UVTTrainingClips", "UVTVideoProcessor", "mirrored_beat", "phase_of_frames"]


class UVTVideosKwargs(EchoMENVideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `UVTVideoProcessor` besides those of `EchoMENVideoProcessor`."""

    training_clip: Literal["mirrored_beat", "video"] | None


class UVTVideoProcessor(EchoMENVideoProcessor):
    r"""`EchoMENVideoProcessor` with the choice of UVT's training clips; where it is used to predict, nothing differs.

    Args:
        training_clip (`str`, *optional*, defaults to `"mirrored_beat"`):
            `"mirrored_beat"` goes back and forth between the end-diastolic and the end-systolic frame that were
            traced, `"video"` takes frames of the video one after the other.
    """

    # The code that travels with a checkpoint is that of the base class, and this one stays behind.
    _auto_class = None
    valid_kwargs = UVTVideosKwargs
    training_clip = "mirrored_beat"

    def __init__(self, **kwargs: Unpack[UVTVideosKwargs]) -> None:
        super().__init__(**kwargs)
        if self.training_clip not in ("mirrored_beat", "video"):
            raise ValueError(f"`training_clip` must be 'mirrored_beat' or 'video', got {self.training_clip!r}.")


class RepeatedFrames:
    """Frames in any order, also repeated, from a source that gives each once and in order."""

    def __init__(self, frames: FrameSource) -> None:
        self.frames = frames

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Read frames of one video, see `FrameSource`."""
        if indices is None:
            return self.frames.read(row)
        needed, position = np.unique(indices, return_inverse=True)
        return self.frames.read(row, needed)[position]


class UVTTrainingClips(TrainingClips):
    """Training clips with `phase_labels`, by the rule of the processor, see `UVTVideoProcessor`.

    End-diastolic and end-systolic frames come from VolumeTracings.csv beside the videos' folder. A video without a
    usable pair of them gives a clip of the video itself, whose phase is not known.
    """

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: UVTVideoProcessor,
        num_views: int = 1,
        crop_padding: int = 12,
        seed: int = 0,
        frames: FrameSource | None = None,
    ) -> None:
        super().__init__(videos, processor, num_views, crop_padding, seed, frames)
        self.frames = RepeatedFrames(self.frames)
        self.mirrors_beat = processor.training_clip == "mirrored_beat"
        self._tracings: dict[Path, dict[str, VolumeTracing]] = {}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read the clip of one video, with `phase_labels` as of `phase_of_frames`, float32, (T,)."""
        item = super().__getitem__(index)
        row = self.videos[index]
        # The frames are drawn first, so drawing them again gives the same ones.
        indices = self.draw_frames(row, np.random.default_rng((self.seed, self.epoch, index)))
        phase = phase_of_frames(indices, self._phase_frames(row))
        return {**item, "phase_labels": torch.from_numpy(phase)}

    def draw_frames(self, row: dict[str, Any], generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw the frames of a training clip: back and forth through the beat, or as for `TrainingClips`."""
        frames = self._phase_frames(row)
        if not self.mirrors_beat or frames is None:
            return super().draw_frames(row, generator)
        _, fps = video_length_and_rate(row)
        return mirrored_beat(min(frames), max(frames), fps, self.processor.clip_spec, generator)

    def _phase_frames(self, row: dict[str, Any]) -> tuple[int, int] | None:
        """Find the end-diastolic and the end-systolic frame of a video, if it has two different ones."""
        root = Path(row["video"]["path"]).parents[1]
        if root not in self._tracings:
            # Tracings of other data sets, such as EchoNet-Pediatric's, are contours and not chords.
            has_chords = has_columns(root / TRACINGS_NAME, "X1", "Y1", "X2", "Y2")
            self._tracings[root] = read_volume_tracings(root) if has_chords else {}
        tracing = self._tracings[root].get(row["file_name"])
        if tracing is None:
            return None
        frames = (tracing.end_diastolic_frame, tracing.end_systolic_frame)
        num_frames, _ = video_length_and_rate(row)
        return frames if 0 <= min(frames) < max(frames) < num_frames else None


def mirrored_beat(
    first: int, last: int, fps: float, spec: ClipSpec, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Go back and forth between the two ends of half a beat until the clip is full; frame numbers, (T,).

    The random start keeps the position in the clip from telling the phase.
    """
    span = last - first
    steps = int(generator.integers(2 * span)) + spec.frame_offsets(fps)
    position = steps % (2 * span)
    return first + np.where(position <= span, position, 2 * span - position)


def phase_of_frames(indices: NDArray[np.int64], frames: tuple[int, int] | None) -> NDArray[np.float32]:
    """Label frames with the phase: 1 at end diastole, -1 at end systole, 0 between them, NaN elsewhere."""
    phase = np.full(len(indices), np.nan, dtype=np.float32)
    if frames is not None:
        end_diastole, end_systole = frames
        phase[(indices >= min(frames)) & (indices <= max(frames))] = 0.0
        phase[indices == end_diastole] = 1.0
        phase[indices == end_systole] = -1.0
    return phase
