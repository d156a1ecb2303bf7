"""Prediction of a video from its clips; every way into the package computes it here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .clip_quality_echomen import Finding, Quality, inspect_estimate, inspect_outline, overall_quality
from .float32_precision_echomen import float32_precision
from .heart_failure_category_echomen import heart_failure_category, within_ef_range
from .prediction_interval_echomen import prediction_interval


__all__ = [
    "VideoPrediction",
    "average_clips",
    "average_experts",
    "begin_estimate",
    "estimate_clips",
    "estimate_embeddings",
    "standard_deviation",
]


@dataclass(frozen=True)
class VideoPrediction:
    """Ejection fraction of one video and its evidence; every EF lies within 0 to 100 %, or is NaN.

    All EF of a video of quality `"unusable"` are NaN, unless the estimate was forced.

    Args:
        file_name: Name of the video.
        ejection_fraction: Mean EF of its clips in percent.
        regression: Mean EF of the stage-1 head in percent.
        expert_predictions: Mean EF of every expert in percent, NaN for one that was not consulted, shape (M,).
        expert_weights: Mean weight of every expert, shape (M,).
        clip_ejection_fractions: EF of every clip in percent, shape (clips,).
        interval: Lowest and highest EF in percent that hold the true one with the probability for which the model was
            calibrated, see `prediction_interval`; NaN without an EF, and `None` without calibration, or for another
            protocol than its own.
        quality: `"good"`, `"doubtful"` or `"unusable"`.
        reasons: Why the quality is not good, a sentence each.
        embedding: Mean embedding of the clips, float64, shape (D,); `None` for a network without embeddings.
        outline: Outline of the left ventricle, a `VideoOutline` of `echomen_hf.outline`, if it was asked for.
    """

    file_name: str
    ejection_fraction: float
    regression: float
    expert_predictions: np.ndarray
    expert_weights: np.ndarray
    clip_ejection_fractions: np.ndarray
    interval: tuple[float, float] | None = None
    quality: Quality = "good"
    reasons: tuple[str, ...] = ()
    embedding: np.ndarray | None = None
    outline: Any = None

    @property
    def category(self) -> str | None:
        """Heart-failure category of the prediction; `None` without an estimate."""
        return None if math.isnan(self.ejection_fraction) else heart_failure_category(self.ejection_fraction)

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
        consulted = self.expert_predictions[~np.isnan(self.expert_predictions)]
        return float(np.ptp(consulted)) if consulted.size else math.nan


Estimates = dict[str, torch.Tensor]


def estimate_clips(
    model: Any, pixel_values: torch.Tensor, engine: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Estimates:
    """Run a model in evaluation mode on normalised clips, float32, shape (B, T, C, H, W), or an engine and its heads.

    The result holds `ejection_fraction` and `regression`, each of shape (B,), `expert_predictions` and
    `expert_weights`, each of shape (B, M), and `embedding` of shape (B, D) if the network has one, all float64 on the
    CPU.
    """
    return begin_estimate(model, pixel_values, engine)()


@torch.inference_mode()
def begin_estimate(
    model: Any, pixel_values: torch.Tensor, engine: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Callable[[], Estimates]:
    """Begin what `estimate_clips` does; the function that is returned waits for the device and gives the result."""
    if engine is None:
        with float32_precision(convolutions="ieee"):
            return _parts(model(pixel_values=pixel_values.to(model.device, model.dtype)))
    return _apply_heads(model, engine(pixel_values))


@torch.inference_mode()
def estimate_embeddings(model: Any, embedding: torch.Tensor) -> Estimates:
    """Run the heads of a model on embeddings, shape (B, D); see `estimate_clips`."""
    return _apply_heads(model, embedding)()


def _apply_heads(model: Any, embedding: torch.Tensor) -> Callable[[], Estimates]:
    with float32_precision():
        return _parts(model(embedding=embedding.to(model.regression_head.weight.device)))


def _parts(output: Any) -> Callable[[], Estimates]:
    names = ["ejection_fraction", "regression", "expert_predictions", "expert_weights"]
    names += ["embedding"] if getattr(output, "embedding", None) is not None else []
    parts = [getattr(output, name) for name in names]
    columns = [part if part.ndim == 2 else part[:, None] for part in parts]
    # Together, so that an accelerator is waited for once.
    joined = torch.cat(columns, dim=1)

    @torch.inference_mode()
    def finish() -> Estimates:
        # The CPU alone is sure to have double precision.
        values = joined.cpu().double().split([column.shape[1] for column in columns], dim=1)
        return {name: value if part.ndim == 2 else value[:, 0] for name, part, value in zip(names, parts, values)}

    return finish


def average_clips(
    file_name: str,
    clips: Mapping[str, torch.Tensor],
    calibration: dict[str, Any] | None = None,
    *,
    distribution: Any = None,
    findings: Sequence[Finding] = (),
    force: bool = False,
    outline: Any = None,
) -> VideoPrediction:
    """Combine the estimates of all clips of a video.

    Args:
        file_name: Name of the video.
        clips: Estimates of the clips, from `estimate_clips`.
        calibration: Calibration of the interval, from `calibration_for`.
        distribution: The model's `training_distribution`, if it has one.
        findings: What `inspect_clip` found.
        force: Whether a video of quality `"unusable"` is given an estimate all the same.
        outline: Outline of the video, a second reading to compare with.

    Returns:
        The prediction.
    """
    values = {name: value.numpy() for name, value in clips.items()}
    embedding = clips["embedding"].mean(dim=0) if "embedding" in clips else None
    known = distribution is not None and embedding is not None
    found = [
        *findings,
        *inspect_estimate(values["ejection_fraction"], distribution.unlikeness(embedding) if known else None),
    ]
    if overall_quality(found) == "unusable" and not force:
        values.update({name: np.full_like(value, np.nan) for name, value in values.items() if name != "embedding"})
    ejection_fraction = float(within_ef_range(values["ejection_fraction"].mean()))
    interval = None if calibration is None else prediction_interval(ejection_fraction, calibration)
    if outline is not None:
        found += inspect_outline(ejection_fraction, interval, outline)
    return VideoPrediction(
        file_name=file_name,
        ejection_fraction=ejection_fraction,
        regression=float(within_ef_range(values["regression"].mean())),
        expert_predictions=within_ef_range(average_experts(values["expert_predictions"])),
        expert_weights=values["expert_weights"].mean(axis=0),
        clip_ejection_fractions=within_ef_range(values["ejection_fraction"]),
        interval=interval,
        quality=overall_quality(found),
        reasons=tuple(finding.reason for finding in found),
        embedding=None if embedding is None else embedding.numpy(),
        outline=outline,
    )


def average_experts(expert_predictions: np.ndarray) -> np.ndarray:
    """Average every expert over the clips that consulted it; NaN stands for not consulted, (clips, M) -> (M,)."""
    total = np.nansum(expert_predictions, axis=0)
    counts = (~np.isnan(expert_predictions)).sum(axis=0)
    return np.divide(total, counts, out=np.full(total.shape, np.nan), where=counts > 0)


def standard_deviation(clips: Mapping[str, torch.Tensor], has_experts: bool) -> float:
    """Measure how far clips and experts disagree, in EF points.

    The variance is that of the clips, plus the mean variance of the experts about their weighted mean.
    """
    variance = float(within_ef_range(clips["ejection_fraction"].numpy()).var())
    if has_experts:
        experts, weights = np.nan_to_num(clips["expert_predictions"].numpy()), clips["expert_weights"].numpy()
        spread = experts - (weights * experts).sum(axis=1, keepdims=True)
        variance += float((weights * spread**2).sum(axis=1).mean())
    return variance**0.5
