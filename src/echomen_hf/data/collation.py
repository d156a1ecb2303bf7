"""Batches of clips."""

from __future__ import annotations

from typing import Any

import torch


__all__ = ["collate_clips"]


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack clips, of one view or of several, or their embeddings, and labels.

    Args:
        samples: Items of `TrainingClips` or `EvaluationClips`, or of data sets of their embeddings.

    Returns:
        `pixel_values`, float32, (B, T, C, H, W), or (B, views, T, C, H, W) for several views, or `embedding`, float32,
        (B, D); `labels`, EF in percent, float32, (B,).
    """
    features = [name for name in samples[0] if name != "labels"]
    return {
        **{name: torch.stack([sample[name] for sample in samples]) for name in features},
        "labels": torch.tensor([sample["labels"] for sample in samples], dtype=torch.float32),
    }
