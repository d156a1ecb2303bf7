"""Batches of clips."""

from __future__ import annotations

from typing import Any

import torch


__all__ = ["collate_clips"]


def collate_clips(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack clips, of one view or of several, and their labels.

    Args:
        samples: Items of `TrainingClips` or `EvaluationClips`.

    Returns:
        `pixel_values`, float32, (B, T, C, H, W), or (B, views, T, C, H, W) for several views; `labels`, EF in
        percent, float32, (B,).
    """
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": torch.tensor([sample["labels"] for sample in samples], dtype=torch.float32),
    }
