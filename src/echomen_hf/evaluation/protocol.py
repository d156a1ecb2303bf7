"""Test protocols: from the clips of a video to one ejection fraction, with what the experts and the clips said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol, protocol_starts
from ..data.clip_dataset import EvaluationClips
from ..data.collation import collate_clips
from ..label_distribution import heart_failure_category
from ..modeling_echomen import EchoMENModel, EchoMENOutput
from ..pipeline_echomen import average_experts
from ..video_processing_echomen import EchoMENVideoProcessor
from ..video_reading_echomen import EchoVideo


__all__ = ["VideoPrediction", "predict_split", "predict_video"]


@dataclass(frozen=True)
class VideoPrediction:
    """Ejection fraction of one video and its evidence.

    Args:
        file_name: Name of the video.
        ejection_fraction: Mean EF of its clips in percent.
        regression: Mean EF of the stage-1 head in percent.
        expert_predictions: Mean EF of every expert in percent, shape (M,).
        expert_weights: Mean weight of every expert, shape (M,).
        clip_ejection_fractions: EF of every clip in percent, shape (clips,).
    """

    file_name: str
    ejection_fraction: float
    regression: float
    expert_predictions: NDArray[np.float64]
    expert_weights: NDArray[np.float64]
    clip_ejection_fractions: NDArray[np.float64]

    @property
    def category(self) -> str:
        """Heart-failure category of the prediction."""
        return heart_failure_category(self.ejection_fraction)

    @property
    def num_clips(self) -> int:
        """Number of clips averaged."""
        return len(self.clip_ejection_fractions)

    @property
    def clip_sd(self) -> float:
        """Standard deviation of the EF of the clips in percent; 0 for a single clip."""
        return float(np.std(self.clip_ejection_fractions))

    @property
    def expert_spread(self) -> float:
        """Highest minus lowest EF of the experts that were consulted, in percent."""
        return float(np.nanmax(self.expert_predictions) - np.nanmin(self.expert_predictions))


def predict_video(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    video: EchoVideo,
    protocol: str = DEFAULT_PROTOCOL,
    batch_size: int = 4,
) -> VideoPrediction:
    """Estimate the ejection fraction of one video.

    Args:
        model: Model in evaluation mode.
        processor: Its video processor.
        video: Grayscale video and its frame rate.
        protocol: Which clips to take, see `protocol_starts`.
        batch_size: Clips per forward pass.

    Returns:
        The prediction, averaged over clips.
    """
    starts = protocol_starts(protocol, video.num_frames, video.fps, processor.clip_spec)
    batches = (
        processor.make_clips(video, starts[first : first + batch_size]) for first in range(0, len(starts), batch_size)
    )
    clips = _run(model, batches)
    return _average(clips, np.zeros(len(starts), dtype=np.int64), [video.source])[0]


def predict_split(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    protocol: str = DEFAULT_PROTOCOL,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
) -> list[VideoPrediction]:
    """Estimate the ejection fraction of every video of a split.

    Args:
        model: Model in evaluation mode.
        processor: Its video processor.
        videos: Rows as `load_echonet_dynamic` gives them.
        protocol: Which clips to take, see `protocol_starts`.
        batch_size: Clips per forward pass, filled across videos.
        num_workers: Processes that read videos besides this one.
        progress: Whether to show a progress bar.

    Returns:
        Predictions in the order of the videos.
    """
    dataset = EvaluationClips(videos, processor, parse_protocol(protocol))
    loader: Iterable[dict[str, torch.Tensor]] = DataLoader(
        dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=collate_clips
    )
    if progress:
        loader = tqdm(loader, desc=f"Predicting {len(videos)} videos ({protocol})", unit="batch")
    clips = _run(model, (batch["pixel_values"] for batch in loader))
    return _average(clips, dataset.video_index, [row["file_name"] for row in videos])


@torch.inference_mode()
def _run(model: EchoMENModel, batches: Iterable[torch.Tensor]) -> dict[str, NDArray[np.float64]]:
    model.eval()
    collected: dict[str, list[NDArray[np.float64]]] = {}
    for pixel_values in batches:
        output: EchoMENOutput = model(pixel_values=pixel_values.to(model.device, model.dtype))
        parts = {
            "ejection_fraction": output.ejection_fraction,
            "regression": output.regression,
            "expert_predictions": output.expert_predictions,
            "expert_weights": output.expert_weights,
        }
        for name, value in parts.items():
            collected.setdefault(name, []).append(value.cpu().double().numpy())
    return {name: np.concatenate(values) for name, values in collected.items()}


def _average(
    clips: dict[str, NDArray[np.float64]], video_index: NDArray[np.int64], names: Sequence[str]
) -> list[VideoPrediction]:
    predictions = []
    for position, name in enumerate(names):
        mine = video_index == position
        predictions.append(
            VideoPrediction(
                file_name=name,
                ejection_fraction=float(clips["ejection_fraction"][mine].mean()),
                regression=float(clips["regression"][mine].mean()),
                expert_predictions=average_experts(clips["expert_predictions"][mine]),
                expert_weights=clips["expert_weights"][mine].mean(axis=0),
                clip_ejection_fractions=clips["ejection_fraction"][mine],
            )
        )
    return predictions
