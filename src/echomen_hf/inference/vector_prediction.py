"""Ejection fractions of videos from the vectors of their clips."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ..data.clip_vectors import ClipVectors
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibration_for
from ..model.video_prediction_echomen import VideoPrediction, average_clips, estimate_embeddings


__all__ = ["predict_vectors"]


def predict_vectors(
    model: EchoMENModel, vectors: ClipVectors, videos: Any, batch_size: int = 256
) -> list[VideoPrediction]:
    """Estimate the ejection fraction of every video of a split from vectors, without its file.

    Args:
        model: Model whose heads work on such vectors; it is put into evaluation mode.
        vectors: Vectors of the clips of these videos.
        videos: Rows with `file_name`.
        batch_size: Videos per step.

    Returns:
        Predictions in the order of the videos.

    Raises:
        ValueError: If a video has no vector, or the vectors have another length than the model's, or were made by
            another encoder than the model has.
    """
    if vectors.size != model.config.embedding_size:
        raise ValueError(
            f"The vectors in {vectors.name} have {vectors.size} numbers, and the model works on "
            f"{model.config.embedding_size}: give those of the encoder that it was trained on."
        )
    vectors.require_encoder_of(model)
    model.eval()
    average = partial(
        average_clips,
        calibration=calibration_for(model.config, vectors.protocol),
        distribution=getattr(model, "training_distribution", None),
        force=True,
    )
    clips = vectors.clips_of(videos)
    names = [row["file_name"] for row in videos]
    predictions = []
    for first in range(0, len(names), batch_size):
        group = clips[first : first + batch_size]
        ends = np.cumsum([0, *map(len, group)])
        estimates = estimate_embeddings(model, vectors.vectors[torch.from_numpy(np.concatenate(group))])
        for name, start, end in zip(names[first : first + batch_size], ends[:-1], ends[1:]):
            predictions.append(average(name, {key: values[start:end] for key, values in estimates.items()}))
    return predictions
