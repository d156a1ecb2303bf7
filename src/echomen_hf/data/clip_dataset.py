"""Clips of echocardiogram videos as PyTorch data sets: random ones for training, fixed ones for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..model.clip_sampling_echomen import clip_indices, protocol_starts, random_start
from ..model.video_reading_echomen import probe_video
from .decoded_frames import DecodedFrames
from .device_clips import pack_clip, random_shift
from .epoch_dataset import EpochDataset


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["EvaluationClips", "FrameSource", "TrainingClips"]


class FrameSource(Protocol):
    """Source of a video's frames: its file (`DecodedFrames`) or a cache (`FrameCache`)."""

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Frames `(K,)`, or all, of one video, resized and cropped, uint8, shape (K, height, width)."""


class TrainingClips(EpochDataset):
    """One random clip per video and epoch, in one or several random crops.

    `with_pixel_values` unpacks the clips. Clip and crops are drawn from a generator keyed by seed, epoch and video, so
    neither the number of loader processes nor an interruption changes them.

    Args:
        videos: Rows with `video`, `ejection_fraction`, `num_frames` and `fps`, as `load_videos` returns them.
        processor: Video processor that resizes and normalises, and sets the length of a clip.
        num_views: Number of independent crops of each clip.
        crop_padding: Zero pixels added on every side before a window of the original size is cut out.
        seed: Seed of all draws.
        frames: Source of the frames. Defaults to the videos' files.
    """

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        num_views: int = 1,
        crop_padding: int = 12,
        seed: int = 0,
        frames: FrameSource | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(videos, "__len__"):
            raise TypeError(
                f"Training draws videos in random order, which a stream ({type(videos).__name__}) cannot give: load "
                "the data set with `streaming=False`."
            )
        if len(videos) == 0:
            raise ValueError("The training split holds no video; check how the data set is split.")
        if num_views < 1 or crop_padding < 0:
            raise ValueError(f"Need at least 1 view and no negative padding, got {num_views} and {crop_padding}.")
        self.videos = videos
        self.processor = processor
        self.num_views = num_views
        self.crop_padding = crop_padding
        self.seed = seed
        self.frames = frames if frames is not None else DecodedFrames(processor)

    @property
    def ejection_fractions(self) -> list[float]:
        """EF of every video in percent."""
        return ejection_fractions(self.videos)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Clip of one video as `pack_clip` makes it, its views as `shifts`; `labels`, EF in percent."""
        row = self.videos[index]
        generator = self._generator(index)
        indices = self.draw_frames(row, generator)
        present = indices[indices >= 0]
        shifts = torch.stack([random_shift(self.crop_padding, generator) for _ in range(self.num_views)])
        frames = self.frames.read(row, present)
        clip = pack_clip(frames, self.processor, shifts if self.num_views > 1 else shifts[0])
        return {**clip, "labels": float(row["ejection_fraction"])}

    def frames_of(self, index: int) -> NDArray[np.int64]:
        """Frames of the clip of one video in this epoch, see `draw_frames`."""
        return self.draw_frames(self.videos[index], self._generator(index))

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, index))

    def draw_frames(self, row: dict[str, Any], generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw the frames of a training clip; a subclass may use another rule.

        Args:
            row: Row of the video.
            generator: Source of randomness.

        Returns:
            Frame numbers, ascending, shape (T,); `PADDING_INDEX` past the end of the video.
        """
        num_frames, fps = video_length_and_rate(row)
        spec = replace(self.processor.clip_spec, short_videos="zeros")  # the paper's data
        return clip_indices(random_start(num_frames, fps, spec, generator), num_frames, fps, spec)


class EvaluationClips(Dataset):
    """The clips that a test protocol takes from every video, in order, as `with_pixel_values` unpacks them.

    Args:
        videos: Rows as `load_videos` returns them.
        processor: Video processor.
        protocol: Test protocol, see `protocol_starts`.
        frames: Source of the frames. Defaults to the videos' files.
    """

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        protocol: str = "windows",
        frames: FrameSource | None = None,
    ) -> None:
        if len(videos) == 0:
            raise ValueError("The evaluation split holds no video; check how the data set is split.")
        self.videos = videos
        self.processor = processor
        self.protocol = protocol
        self.frames = frames if frames is not None else DecodedFrames(processor)
        # Once, since a row that does not tell costs opening the file.
        self._lengths = [video_length_and_rate(row) for row in videos]
        self._starts = [protocol_starts(protocol, *length, processor.clip_spec).tolist() for length in self._lengths]
        self._clips = [(position, start) for position, starts in enumerate(self._starts) for start in starts]
        self._last_read: tuple[int, NDArray[np.int64], NDArray[np.uint8]] | None = None

    @property
    def video_index(self) -> NDArray[np.int64]:
        """Position of the video that each clip comes from, shape (clips,)."""
        return np.array([position for position, _ in self._clips], dtype=np.int64)

    @property
    def clip_starts(self) -> list[int]:
        """First frame of each clip."""
        return [start for _, start in self._clips]

    @property
    def labels(self) -> NDArray[np.float64]:
        """EF of every video in percent, shape (videos,)."""
        return np.array(ejection_fractions(self.videos), dtype=np.float64)

    @property
    def file_names(self) -> list[str]:
        """Name of every video."""
        return _column(self.videos, "file_name")

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip as `pack_clip` makes it; `labels`, EF of its video in percent."""
        position, start = self._clips[index]
        row = self.videos[position]
        # Clips of one video follow each other, and share frames; reading it once is enough for all of them.
        if self._last_read is None or self._last_read[0] != position:
            needed = np.unique(np.concatenate([self._frames_of(position, other) for other in self._starts[position]]))
            self._last_read = (position, needed, self.frames.read(row, needed))
        _, needed, frames = self._last_read
        clip = frames[np.searchsorted(needed, self._frames_of(position, start))]
        return {**pack_clip(clip, self.processor), "labels": float(row["ejection_fraction"])}

    def _frames_of(self, position: int, start: int) -> NDArray[np.int64]:
        indices = clip_indices(start, *self._lengths[position], self.processor.clip_spec)
        return indices[indices >= 0]


def ejection_fractions(videos: Any) -> list[float]:
    """EF in percent of every row of a data set of `load_videos` or of a list."""
    return [float(ef) for ef in _column(videos, "ejection_fraction")]


def _column(videos: Any, name: str) -> list[Any]:
    return list(videos[name] if hasattr(videos, "column_names") else [row[name] for row in videos])


def video_length_and_rate(row: dict[str, Any]) -> tuple[int, float]:
    """Number of frames and frames per second of a video, from its row or else from the file's header."""
    num_frames, fps = row.get("num_frames"), row.get("fps")
    if not num_frames or not fps or fps != fps:
        info = probe_video(row["video"]["path"])
        num_frames, fps = info.num_frames, info.fps
    return int(num_frames), float(fps)
