"""Mean and standard deviation of the pixels of a training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .decoded_frames import DecodedFrames


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor
    from .clip_dataset import FrameSource

__all__ = ["pixel_statistics"]


def pixel_statistics(
    videos: Sequence[dict[str, Any]],
    processor: EchoMENVideoProcessor,
    num_videos: int = 128,
    seed: int = 0,
    frames: FrameSource | None = None,
) -> tuple[float, float]:
    """Measure the mean and standard deviation that normalise a training set.

    Args:
        videos: Rows of the training split as `load_videos` returns them.
        processor: Video processor whose resizing and cropping are applied first.
        num_videos: Number of videos to measure, drawn without replacement; at most all.
        seed: Seed of the draw.
        frames: Source of the frames. Defaults to the videos' files.

    Returns:
        Mean and standard deviation over all pixels of these videos, on the 0-255 scale.
    """
    frames = frames if frames is not None else DecodedFrames(processor)
    chosen = np.random.default_rng(seed).permutation(len(videos))[:num_videos]
    count, total, total_squared = 0, 0, 0
    for index in sorted(chosen.tolist()):
        # Sums of integers are exact, so that neither order nor number of videos costs precision.
        histogram = np.bincount(frames.read(videos[index]).ravel(), minlength=256)
        levels = np.arange(256)
        count += int(histogram.sum())
        total += int((histogram * levels).sum())
        total_squared += int((histogram * levels**2).sum())
    mean = total / count
    return mean, max(total_squared / count - mean**2, 0.0) ** 0.5
