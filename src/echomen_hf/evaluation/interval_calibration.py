"""Calibration of a model on VAL, its prediction intervals and the usual distance of a video from the others."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from ..data.clip_dataset import FrameSource
from ..data.clip_vectors import ClipVectors
from ..inference import predict_split, predict_vectors
from ..labels import category_masks
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibrate_intervals, prediction_interval
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import replacing, write_json


__all__ = ["calibrate_model", "interval_metrics", "store_calibration"]


_RIDGE = 0.001  # share of the mean variance; with ten times as much, fewer other recordings are found unlike


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
    readings: Sequence[float] | None = None,
    vectors: ClipVectors | None = None,
    error_groups: Sequence[str | None] | None = None,
    has_usual_embedding: Sequence[bool] | None = None,
) -> dict[str, Any]:
    """Calibrate the prediction intervals of a model and store them in its configuration.

    The intervals hold the EF of the rows, or, if given, `readings` of them in percent.

    An EchoMEN model also learns how the embeddings of the videos are distributed, so that it can tell when a video is
    not like them. Videos that `has_usual_embedding` marks as `False` do not count for this.

    `error_groups` names what later videos may all be like, so that the intervals hold in each group, see
    `calibrate_intervals`. Videos without a group do not count for the intervals.

    The best epoch is chosen on VAL too, which makes its errors slightly smaller than later ones. With hundreds of
    videos and tens of epochs, the effect is small compared with the spread of the errors; the coverage on TEST
    shows it.
    """
    if vectors is not None:
        protocol = vectors.protocol
        predictions = predict_vectors(model, vectors, videos)
    else:
        predictions = predict_split(
            model, processor, videos, protocol, batch_size, num_workers, progress, frames=frames
        )
    estimates = [prediction.ejection_fraction for prediction in predictions]
    labels = [row["ejection_fraction"] for row in videos] if readings is None else readings
    groups = [""] * len(videos) if error_groups is None else error_groups
    has_group = [group is not None for group in groups]
    calibration = {
        **calibrate_intervals(
            _marked(estimates, has_group),
            _marked(labels, has_group),
            coverage,
            _marked(groups, has_group),
        ),
        "protocol": parse_protocol(protocol),
    }
    model.config.interval_calibration = calibration
    embeddings = [
        prediction.embedding
        for prediction in _marked(predictions, has_usual_embedding)
        if prediction.embedding is not None
    ]
    if embeddings and hasattr(model, "set_training_distribution"):
        model.set_training_distribution(*embedding_distribution(np.stack(embeddings)))
    return calibration


def _marked(items: Sequence[Any], marks: Sequence[bool] | None) -> list[Any]:
    return list(items if marks is None else itertools.compress(items, marks))


def embedding_distribution(
    embeddings: NDArray[np.float64], usual_share: float = 0.99
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Fit a normal distribution to the embeddings of videos, and find the distance that most do not exceed.

    The distance of a video is measured by the other half of the videos, since those that a covariance is fitted to lie
    nearer to it than others.

    Args:
        embeddings: Mean embedding of every video, shape (N, D).
        usual_share: Share of the videos that do not exceed the distance.

    Returns:
        Mean (D,), inverse covariance (D, D), and the distance.
    """
    halves = embeddings[::2], embeddings[1::2]
    distances = []
    for fitted, other in (halves, halves[::-1]) if len(embeddings) > 3 else ((embeddings, embeddings),):
        mean, precision = _normal_distribution(fitted)
        offset = other - mean
        distances.append(np.sqrt(np.einsum("ij,jk,ik->i", offset, precision, offset)))
    mean, precision = _normal_distribution(embeddings)
    usual = float(np.quantile(np.concatenate(distances), usual_share))
    return torch.from_numpy(mean).float(), torch.from_numpy(precision).float(), usual


def _normal_distribution(embeddings: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and inverse covariance, to which a ridge is added."""
    covariance = np.atleast_2d(np.cov(embeddings, rowvar=False, bias=True))
    size = len(covariance)
    ridge = _RIDGE * np.trace(covariance) / size + 1e-12
    return embeddings.mean(axis=0), np.linalg.inv(covariance + ridge * np.eye(size))


def store_calibration(folder: str | Path, model: EchoMENModel) -> None:
    """Write the calibration of a model into the folder that it was loaded from; other weights stay as stored there."""
    path = Path(folder) / CONFIG_NAME
    settings = json.loads(path.read_text(encoding="utf-8"))
    found = {name: getattr(model.config, name, None) for name in ("interval_calibration", "usual_distance")}
    stored = load_file(path.with_name(SAFE_WEIGHTS_NAME))
    state = {
        name: value.to(stored[name].dtype if name in stored else value.dtype).contiguous()
        for name, value in model.state_dict().items()
    }
    with replacing(path.with_name(SAFE_WEIGHTS_NAME)) as weights:
        save_file(state, weights, {"format": "pt"})
    write_json(path, {**settings, **found})


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
