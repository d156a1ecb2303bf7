"""Whole videos, for models that look at all of their frames at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .clip_dataset import FrameSource, video_length_and_rate
from .decoded_frames import DecodedFrames


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["WholeVideos"]


class WholeVideos(Dataset):
    """Resized frames of every video."""

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        frames: FrameSource | None = None,
    ) -> None:
        if len(videos) == 0:
            raise ValueError("The evaluation split holds no video; check the Split column of FileList.csv.")
        self.videos = videos
        self.frames = frames if frames is not None else DecodedFrames(processor)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`file_name`; `frames`, uint8, shape (N, H, W); `fps`, frames per second."""
        row = self.videos[index]
        num_frames, fps = video_length_and_rate(row)
        frames = torch.from_numpy(self.frames.read(row, np.arange(num_frames)))
        return {"file_name": row["file_name"], "frames": frames, "fps": fps}
