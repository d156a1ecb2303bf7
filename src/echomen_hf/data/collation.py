"""Batches of clips."""

from __future__ import annotations

from typing import Any

import torch


__all__ = ["collate_clips"]


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack clips, of one view or of several, or their embeddings, and labels.

    Args:
        samples: Items of `TrainingClips` or `EvaluationClips`, of data sets of their embeddings, or of any data set
            whose items are tensors and `labels`, such as `pixel_values`, float32, (T, C, H, W).

    Returns:
        Every field stacked along a new first dimension (see `with_pixel_values` for what packed clips become);
        `labels`, EF in percent, float32, (B,).
    """
    features = [name for name in samples[0] if name != "labels"]
    return {
        **{name: torch.stack([sample[name] for sample in samples]) for name in features},
        "labels": torch.tensor([sample["labels"] for sample in samples], dtype=torch.float32),
    }
