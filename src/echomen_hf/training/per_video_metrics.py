"""Errors of videos from predictions for clips."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from transformers import EvalPrediction

from ..data.clip_dataset import EvaluationClips
from ..metrics import ef_regression_metrics
from .embeddings import EvaluationEmbeddings


__all__ = ["per_video_metrics"]


def per_video_metrics(
    dataset: EvaluationClips | EvaluationEmbeddings,
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the `compute_metrics` that averages the clips of each video and measures the errors of the videos."""
    video_index, labels = dataset.video_index, dataset.labels

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        clips = np.asarray(prediction.predictions, dtype=np.float64).reshape(-1)
        videos = np.bincount(video_index, weights=clips) / np.bincount(video_index)
        metrics = ef_regression_metrics(videos, labels)
        kept = {name: value for name, value in metrics.items() if name.startswith(("mae", "balanced_mae"))}
        return {"mse": metrics["rmse"] ** 2, **{name: v for name, v in kept.items() if not math.isnan(v)}}

    return compute_metrics
