"""Clips of echocardiogram videos as PyTorch data sets: random ones for training, fixed ones for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..clip_sampling_echomen import clip_indices, protocol_starts, random_start
from ..video_processing_echomen import pad_with_zeros
from ..video_reading_echomen import probe_video
from .decoded_frames import DecodedFrames
from .epoch_dataset import EpochDataset


if TYPE_CHECKING:
    from ..video_processing_echomen import EchoMENVideoProcessor

__all__ = ["EvaluationClips", "FrameSource", "TrainingClips", "random_crop"]


class FrameSource(Protocol):
    """Where the frames of a video come from: its file (`DecodedFrames`) or a cache (`FrameCache`)."""

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Read frames of one video, resized and cropped.

        Args:
            row: Row as `load_echonet_dynamic` gives it.
            indices: Frames to read, ascending, shape (K,); all without.

        Returns:
            Frames, uint8, shape (K, height, width).
        """


class TrainingClips(EpochDataset):
    """One random clip per video and epoch, in one or several random crops.

    The clip and its crops are drawn from a generator keyed by seed, epoch and video, so that neither the number of
    loader processes nor an interruption changes what is drawn.

    Args:
        videos: Rows with `video`, `ejection_fraction`, `num_frames` and `fps`, as `load_echonet_dynamic` gives them.
        processor: Video processor that resizes, normalises and knows the length of a clip.
        num_views: Independent crops of each clip.
        crop_padding: Zero pixels added on every side before a window of the original size is cut out.
        seed: Seed of all draws.
        frames: Where frames come from; the videos' files without.
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
            raise ValueError("The training split holds no video; check the Split column of FileList.csv.")
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
        """Count the videos."""
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read, cut and crop the clip of one video.

        Args:
            index: Position of the video.

        Returns:
            `pixel_values`, float32, (T, C, H, W), or (views, T, C, H, W) with several views; `labels`, EF in percent.
        """
        row = self.videos[index]
        generator = np.random.default_rng((self.seed, self.epoch, index))
        num_frames, fps = video_length_and_rate(row)
        spec = self.processor.clip_spec
        indices = clip_indices(random_start(num_frames, fps, spec, generator), num_frames, fps, spec)
        present = indices[indices >= 0]
        clip = make_clip(self.frames.read(row, present), self.processor)
        views = [random_crop(clip, self.crop_padding, generator) for _ in range(self.num_views)]
        return {
            "pixel_values": views[0] if self.num_views == 1 else torch.stack(views),
            "labels": float(row["ejection_fraction"]),
        }


class EvaluationClips(Dataset):
    """The clips that a test protocol takes from every video, in the order of the videos.

    Args:
        videos: Rows as `load_echonet_dynamic` gives them.
        processor: Video processor.
        protocol: Test protocol, see `protocol_starts`.
        frames: Where frames come from; the videos' files without.
    """

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        protocol: str = "windows",
        frames: FrameSource | None = None,
    ) -> None:
        if len(videos) == 0:
            raise ValueError("The evaluation split holds no video; check the Split column of FileList.csv.")
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
    def labels(self) -> NDArray[np.float64]:
        """EF of every video in percent, shape (videos,)."""
        return np.array(ejection_fractions(self.videos), dtype=np.float64)

    @property
    def file_names(self) -> list[str]:
        """Name of every video."""
        videos: Any = self.videos
        return list(videos["file_name"] if hasattr(videos, "column_names") else [row["file_name"] for row in videos])

    def __len__(self) -> int:
        """Count the clips of all videos."""
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one clip.

        Args:
            index: Position of the clip.

        Returns:
            `pixel_values`, float32, (T, C, H, W); `labels`, EF of its video in percent.
        """
        position, start = self._clips[index]
        row = self.videos[position]
        # Clips of one video follow each other, and share frames; reading it once is enough for all of them.
        if self._last_read is None or self._last_read[0] != position:
            needed = np.unique(np.concatenate([self._frames_of(position, other) for other in self._starts[position]]))
            self._last_read = (position, needed, self.frames.read(row, needed))
        _, needed, frames = self._last_read
        clip = frames[np.searchsorted(needed, self._frames_of(position, start))]
        return {"pixel_values": make_clip(clip, self.processor), "labels": float(row["ejection_fraction"])}

    def _frames_of(self, position: int, start: int) -> NDArray[np.int64]:
        indices = clip_indices(start, *self._lengths[position], self.processor.clip_spec)
        return indices[indices >= 0]


def ejection_fractions(videos: Any) -> list[float]:
    """Collect the EF of every video.

    Args:
        videos: Data set of `load_echonet_dynamic`, or a list of its rows.

    Returns:
        EF in percent.
    """
    column = videos["ejection_fraction"] if hasattr(videos, "column_names") else None
    return [float(ef) for ef in (column or [row["ejection_fraction"] for row in videos])]


def video_length_and_rate(row: dict[str, Any]) -> tuple[int, float]:
    """Find the number of frames and the frame rate of a video, from its row or else from the file's header.

    Args:
        row: Row as `load_echonet_dynamic` gives it.

    Returns:
        Number of frames, and frames per second.
    """
    num_frames, fps = row.get("num_frames"), row.get("fps")
    if not num_frames or not fps or fps != fps:
        info = probe_video(row["video"]["path"])
        num_frames, fps = info.num_frames, info.fps
    return int(num_frames), float(fps)


def make_clip(frames: NDArray[np.uint8], processor: EchoMENVideoProcessor) -> torch.Tensor:
    """Normalise the frames of one clip.

    Args:
        frames: Frames of the clip that the video has, resized, uint8, shape (K, H, W).
        processor: Video processor.

    Returns:
        Normalised clip, float32, (T, C, H, W); frames past the end are zero.
    """
    return pad_with_zeros(processor.normalize_frames(torch.from_numpy(frames)), processor.num_frames)


def random_crop(clip: torch.Tensor, padding: int, generator: np.random.Generator) -> torch.Tensor:
    """Shift a clip by up to `padding` pixels in each direction, filling with zeros.

    Args:
        clip: Normalised clip, (T, C, H, W).
        padding: Largest shift in pixels.
        generator: Source of the shift.

    Returns:
        Clip of the same shape: a random window of the zero-padded clip.
    """
    height, width = clip.shape[-2:]
    top, left = generator.integers(0, 2 * padding + 1, size=2)
    padded = torch.nn.functional.pad(clip, (padding, padding, padding, padding))
    return padded[..., top : top + height, left : left + width].contiguous()
