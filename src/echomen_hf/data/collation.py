"""Batches of clips."""

from __future__ import annotations

from typing import Any

import torch

from .device_clips import HOST_FIELDS


__all__ = ["collate_clips"]


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack clips of one view or several, or their embeddings, and labels.

    Args:
        samples: Items of `TrainingClips`, `EvaluationClips` or a data set of embeddings, or tensors and `labels` of
            any other data set, such as `pixel_values`, float32, (T, C, H, W).

    Returns:
        Every field stacked along a new first dimension, of packed clips the `HOST_FIELDS` as NumPy arrays
            (`with_pixel_values` unpacks them); `labels`, EF in percent, float32, (B,).
    """
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0] if name != "labels"}
    return {
        **{name: value.numpy() if name in HOST_FIELDS else value for name, value in stacked.items()},
        "labels": torch.tensor([sample["labels"] for sample in samples], dtype=torch.float32),
    }
