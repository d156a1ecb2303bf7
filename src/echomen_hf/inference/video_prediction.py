"""Test protocols: from the clips of a video to one ejection fraction, with what the experts and the clips said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data.clip_dataset import EvaluationClips, FrameSource
from ..data.collation import collate_clips
from ..data.device_clips import with_pixel_values
from ..data.whole_videos import WholeVideos
from ..labels import heart_failure_category
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol, protocol_starts
from ..model.echo_video_echomen import EchoVideo
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from ..model.pipeline_echomen import average_experts
from ..model.prediction_interval_echomen import calibration_for, prediction_interval
from ..model.video_processing_echomen import EchoMENVideoProcessor


if TYPE_CHECKING:
    from .windows.shared_windows import SharedWindows

__all__ = [
    "Encode",
    "VideoPrediction",
    "average_clips",
    "estimate_clips",
    "estimate_together",
    "join_clips",
    "predict_split",
    "predict_video",
]

Encode = Callable[[torch.Tensor], torch.Tensor]
"""From normalised clips, float32, shape (B, T, C, H, W), to embeddings, (B, D); see `echomen_hf.inference.Engine`."""


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
        interval: Lowest and highest EF in percent that hold the true one with the probability for which the model was
            calibrated, see `prediction_interval`; `None` without calibration, or for another protocol than its own.
    """

    file_name: str
    ejection_fraction: float
    regression: float
    expert_predictions: NDArray[np.float64]
    expert_weights: NDArray[np.float64]
    clip_ejection_fractions: NDArray[np.float64]
    interval: tuple[float, float] | None = None

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
    engine: Encode | None = None,
    windows: SharedWindows | None = None,
) -> VideoPrediction:
    """Estimate the ejection fraction of one video.

    Args:
        model: Model in evaluation mode.
        processor: Its video processor.
        video: Grayscale video and its frame rate.
        protocol: Which clips to take, see `protocol_starts`.
        batch_size: Clips per forward pass.
        engine: What runs the encoder; the model itself without.
        windows: What runs the encoder instead, on all clips of the video together.

    Returns:
        The prediction, averaged over clips.
    """
    calibration = calibration_for(model.config, protocol)
    if windows is not None:
        frames = processor.resize_frames(video.frames)
        together = estimate_together(model, processor, frames, video.fps, protocol, windows)
        return average_clips(video.source, together, calibration)
    starts = protocol_starts(protocol, video.num_frames, video.fps, processor.clip_spec)
    batches = (
        processor.make_clips(video, starts[first : first + batch_size]) for first in range(0, len(starts), batch_size)
    )
    clips = join_clips([estimate_clips(model, batch, engine) for batch in batches])
    return average_clips(video.source, clips, calibration)


def predict_split(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    protocol: str = DEFAULT_PROTOCOL,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
    engine: Encode | None = None,
    windows: SharedWindows | None = None,
    frames: FrameSource | None = None,
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
        engine: What runs the encoder; the model itself without.
        windows: What runs the encoder instead, on all clips of a video together.
        frames: Where frames come from; the videos' files without.

    Returns:
        Predictions in the order of the videos.
    """
    calibration = calibration_for(model.config, protocol)
    if windows is not None:
        whole: Iterable[dict[str, Any]] = DataLoader(
            WholeVideos(videos, processor, frames), batch_size=None, num_workers=num_workers
        )
        if progress:
            whole = tqdm(whole, desc=f"Predicting {len(videos)} videos ({protocol})", unit="video")
        return [
            average_clips(
                item["file_name"],
                estimate_together(model, processor, item["frames"], item["fps"], protocol, windows),
                calibration,
            )
            for item in whole
        ]
    dataset = EvaluationClips(videos, processor, parse_protocol(protocol), frames)
    loader: Iterable[dict[str, torch.Tensor]] = DataLoader(
        dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=collate_clips
    )
    if progress:
        loader = tqdm(loader, desc=f"Predicting {len(videos)} videos ({protocol})", unit="batch")
    device = model.device if engine is None else None
    batches = (with_pixel_values(batch, device)["pixel_values"] for batch in loader)
    clips = join_clips([estimate_clips(model, pixel_values, engine) for pixel_values in batches])
    # Clips come in the order of their videos.
    ends = np.cumsum(np.bincount(dataset.video_index, minlength=len(videos)))[:-1]
    parts = {name: np.split(values, ends) for name, values in clips.items()}
    return [
        average_clips(row["file_name"], {name: values[position] for name, values in parts.items()}, calibration)
        for position, row in enumerate(videos)
    ]


@torch.inference_mode()
def estimate_clips(
    model: EchoMENModel, pixel_values: torch.Tensor, engine: Encode | None = None
) -> dict[str, NDArray[np.float64]]:
    """Estimate the ejection fraction of single clips.

    Args:
        model: Model; it is put into evaluation mode.
        pixel_values: Normalised clips, float32, shape (B, T, C, H, W).
        engine: What runs the encoder; the model itself without.

    Returns:
        `ejection_fraction` and `regression`, in percent, each of shape (B,); `expert_predictions`, in percent, and
        `expert_weights`, each of shape (B, M).
    """
    model.eval()
    if engine is None:
        return as_arrays(model(pixel_values=pixel_values.to(model.device, model.dtype)))
    # Not `model.device`, which is that of the encoder: an exported model has none.
    return as_arrays(model(embedding=engine(pixel_values).to(model.regression_head.weight.device)))


@torch.inference_mode()
def estimate_together(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    frames: torch.Tensor,
    fps: float,
    protocol: str,
    windows: SharedWindows,
) -> dict[str, NDArray[np.float64]]:
    """Estimate the ejection fraction of all clips of a video, with the work that clips have in common done once.

    Args:
        model: Model; it is put into evaluation mode.
        processor: Video processor whose channels `windows` expects.
        frames: All frames of the video, resized, uint8, shape (N, H, W).
        fps: Frames per second of the video.
        protocol: Which clips to take, see `protocol_starts`.
        windows: What runs the encoder.

    Returns:
        See `estimate_clips`.
    """
    model.eval()
    spec = processor.clip_spec
    starts = protocol_starts(protocol, len(frames), fps, spec)
    embedding = windows(frames, starts, spec.frame_offsets(fps), processor.normalize_frames)
    return as_arrays(model(embedding=embedding.to(model.regression_head.weight.device)))


def as_arrays(output: EchoMENOutput) -> dict[str, NDArray[np.float64]]:
    """Take out of an output what the prediction of a video is made of, as `estimate_clips` returns it."""
    parts = {
        "ejection_fraction": output.ejection_fraction,
        "regression": output.regression,
        "expert_predictions": output.expert_predictions,
        "expert_weights": output.expert_weights,
    }
    return {name: value.cpu().double().numpy() for name, value in parts.items()}


def average_clips(
    file_name: str, clips: dict[str, NDArray[np.float64]], calibration: dict[str, Any] | None = None
) -> VideoPrediction:
    """Make the prediction of a video out of those of its clips.

    Args:
        file_name: Name of the video.
        clips: All clips of the video, as `estimate_clips` gives them.
        calibration: What turns the prediction into an interval, see `calibration_for`.

    Returns:
        The prediction.
    """
    ejection_fraction = float(clips["ejection_fraction"].mean())
    return VideoPrediction(
        file_name=file_name,
        ejection_fraction=ejection_fraction,
        regression=float(clips["regression"].mean()),
        expert_predictions=average_experts(clips["expert_predictions"]),
        expert_weights=clips["expert_weights"].mean(axis=0),
        clip_ejection_fractions=clips["ejection_fraction"],
        interval=None if calibration is None else prediction_interval(ejection_fraction, calibration),
    )


def join_clips(batches: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Join the estimates of several batches of clips to those of one.

    Args:
        batches: One or more results of `estimate_clips`.

    Returns:
        What `estimate_clips` would give for all clips at once.
    """
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
