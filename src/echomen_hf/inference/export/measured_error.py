"""Error of an export: how far its ejection fractions lie from those of the model in single precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from ...data.clip_dataset import ejection_fractions
from ...data.device_clips import pack_clip, with_pixel_values
from ...metrics import ef_regression_metrics
from ...model.modeling_echomen import EchoMENModel
from ...model.video_prediction_echomen import estimate_clips, estimate_embeddings
from ...model.video_processing_echomen import EchoMENVideoProcessor
from ..engines.encoder_graph import ClipShape
from ..engines.engine import Engine
from ..video_clips import ClipsOfSplit
from ..video_prediction import predict_split


__all__ = [
    "ClipsOfVideos",
    "DEFAULT_MAX_CHANGE",
    "DEFAULT_MAX_MAE_RISE",
    "EFErrors",
    "ErrorBound",
    "ejection_fraction_heads",
    "errors_on_noise",
    "errors_on_videos",
    "spread_over_ef",
]

DEFAULT_MAX_MAE_RISE = 0.1
"""Rise of the mean absolute error, in EF points, up to which an export is written."""

DEFAULT_MAX_CHANGE = {"fp32": 0.01, "bf16": 1.0, "int8": 2.0}
"""Change of the EF of a single video, in EF points, up to which an export is written."""

DIGITS = 6
NOISE_CLIPS = 8


@dataclass(frozen=True)
class EFErrors:
    """Ejection fractions of an export against those of the model in single precision, in EF points."""

    num_videos: int  # 0 for clips of noise
    num_clips: int
    mean_change: float  # absolute change of the EF of a video, or of a clip of noise
    max_change: float
    mae_reference: float | None = None  # of the model; None without reference EFs
    mae: float | None = None  # of the export
    mae_rise: float | None = None


@dataclass(frozen=True)
class ErrorBound:
    """Largest error of an export, in EF points."""

    max_mae_rise: float
    max_change: float

    def __post_init__(self) -> None:
        for name, value in (("max_mae_rise", self.max_mae_rise), ("max_change", self.max_change)):
            if not 0 <= value < np.inf:
                raise ValueError(f"`{name}` is a number of EF points and not negative, got {value}.")

    def violations(self, errors: EFErrors) -> list[str]:
        """Describe the errors that exceed the bound or are NaN, with numbers."""
        found = []
        if errors.mae_rise is not None and not errors.mae_rise <= self.max_mae_rise:
            found.append(
                f"the mean absolute error rises by {errors.mae_rise:.4f} EF points, from {errors.mae_reference:.4f} "
                f"to {errors.mae:.4f} (allowed: {self.max_mae_rise:g})"
            )
        if not errors.max_change <= self.max_change:
            found.append(
                f"the EF of one of them changes by {errors.max_change:.4f} points, {errors.mean_change:.4f} on "
                f"average (allowed: {self.max_change:g})"
            )
        return found


class ClipsOfVideos(Sequence[NDArray[np.float32]]):
    """All clips of each of several videos, read when they are asked for."""

    def __init__(self, videos: Any, processor: EchoMENVideoProcessor, protocol: str) -> None:
        self.videos = videos
        self._clips = ClipsOfSplit(videos, processor, protocol)
        self.processor = processor

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: Any) -> Any:  # Of `Sequence`, but for slices.
        clips = self._clips[int(index)]
        packed = [pack_clip(clips[number], self.processor) for number in range(len(clips))]
        return with_pixel_values(default_collate(packed))["pixel_values"].numpy()  # (K, T, C, H, W)


def spread_over_ef(videos: Any, count: int | None) -> list[int]:
    """Choose positions of videos at equal distances of rank in EF, so that low EFs are among them."""
    order = np.argsort(ejection_fractions(videos), kind="stable")
    if count is None or count >= len(order):
        return order.tolist()
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)].tolist()


def errors_on_videos(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    engine: Engine,
    videos: Any,
    protocol: str,
    batch_size: int = 4,
    progress: bool = True,
) -> EFErrors:
    """Measure the errors of an engine on videos with reference ejection fractions."""
    exact, changed = (
        predict_split(model, processor, videos, protocol, batch_size, progress=progress, engine=encode)
        for encode in (None, engine)
    )
    found, expected = (np.array([p.ejection_fraction for p in predictions]) for predictions in (changed, exact))
    references = ejection_fractions(videos)
    mae, mae_reference = (ef_regression_metrics(values, references)["mae"] for values in (found, expected))
    change = np.abs(found - expected)
    return EFErrors(
        num_videos=len(exact),
        num_clips=sum(prediction.num_clips for prediction in exact),
        mean_change=rounded(change.mean()),
        max_change=rounded(change.max()),
        mae_reference=rounded(mae_reference),
        mae=rounded(mae),
        mae_rise=rounded(mae - mae_reference),
    )


def errors_on_noise(model: EchoMENModel, engine: Engine, seed: int) -> EFErrors:
    """Measure the errors of an engine on clips of normally distributed noise."""
    generator = torch.Generator().manual_seed(seed)
    changes = []
    for _ in range(NOISE_CLIPS):
        clip = torch.randn(1, *ClipShape.of(model.config), generator=generator)
        found, expected = (estimate_clips(model, clip, encode)["ejection_fraction"] for encode in (engine, None))
        changes.append(abs(float(found[0] - expected[0])))
    return EFErrors(
        num_videos=0,
        num_clips=len(changes),
        mean_change=rounded(np.mean(changes)),
        max_change=rounded(np.max(changes)),
    )


def ejection_fraction_heads(model: EchoMENModel) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Make a function from embeddings, (B, D), to EF in percent, (B,), for libraries that use arrays."""

    def predict(embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        return estimate_embeddings(model, torch.from_numpy(np.array(embedding)))["ejection_fraction"].numpy()

    return predict


def rounded(value: Any) -> float:
    """Round EF points to the digits that repeat on every run."""
    return round(float(value), DIGITS)
