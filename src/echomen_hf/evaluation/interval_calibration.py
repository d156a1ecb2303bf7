"""Calibration of a model's prediction intervals on VAL, and measurement of their coverage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers.utils import CONFIG_NAME

from ..data.clip_dataset import FrameSource
from ..inference import predict_split
from ..labels import category_masks
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibrate_intervals, prediction_interval
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import write_json


__all__ = ["calibrate_model", "interval_metrics", "store_calibration"]


def calibrate_model(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    *,
    protocol: str = DEFAULT_PROTOCOL,
    coverage: float = 0.9,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
    frames: FrameSource | None = None,
) -> dict[str, Any]:
    """Calibrate the prediction intervals of a model and store them in its configuration.

    The best epoch is chosen on VAL too, which makes its errors slightly smaller than later ones. With hundreds of
    videos and tens of epochs, the effect is small compared with the spread of the errors; the coverage on TEST
    shows it.
    """
    predictions = predict_split(model, processor, videos, protocol, batch_size, num_workers, progress, frames=frames)
    calibration = {
        **calibrate_intervals(
            [prediction.ejection_fraction for prediction in predictions],
            [row["ejection_fraction"] for row in videos],
            coverage,
        ),
        "protocol": parse_protocol(protocol),
    }
    model.config.interval_calibration = calibration
    return calibration


def store_calibration(folder: str | Path, calibration: Mapping[str, Any]) -> None:
    """Write a calibration into the configuration of a saved model."""
    path = Path(folder) / CONFIG_NAME
    settings = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**settings, "interval_calibration": calibration})


def interval_metrics(
    predictions: ArrayLike, references: ArrayLike, calibration: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Measure how often prediction intervals hold the true ejection fraction, and how wide they are.

    The result has, for `all` and every heart-failure category with videos, `coverage` (a share), `width` (the mean in
    EF points) and `n`.
    """
    labels = np.asarray(references, dtype=np.float64)
    ends: NDArray[np.float64] = np.array(
        [prediction_interval(float(ef), dict(calibration)) for ef in np.asarray(predictions)]
    )
    inside = (ends[:, 0] <= labels) & (labels <= ends[:, 1])
    width = ends[:, 1] - ends[:, 0]
    return {
        category: {"coverage": float(inside[mask].mean()), "width": float(width[mask].mean()), "n": int(mask.sum())}
        for category, mask in category_masks(labels).items()
        if mask.any()
    }
