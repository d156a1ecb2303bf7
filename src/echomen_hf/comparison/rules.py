"""Check of the rule that all encoders take the same number of steps; docs/comparison.md lists all rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..training import EchoMENTrainingArguments
from .settings import ComparisonSettings
from .variants import REFERENCE_METHOD, Variant


__all__ = ["count_encoder_steps", "require_equal_steps"]


def count_encoder_steps(args: EchoMENTrainingArguments, num_videos: int) -> int:
    """Number of optimiser steps of stage 1, 0 for a method that reuses the stage 1 of another."""
    if 1 not in args.stages:
        return 0
    if args.max_steps > 0:
        return args.max_steps
    batch = args.per_device_train_batch_size * args.world_size
    batches = num_videos // batch if args.dataloader_drop_last else math.ceil(num_videos / batch)
    steps_per_epoch = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
    return math.ceil(steps_per_epoch * args.num_train_epochs)


def require_equal_steps(settings: ComparisonSettings, variants: Sequence[Variant], num_videos: int) -> dict[str, int]:
    """Encoder steps of every method by name. Raises a `ValueError` if the schedule is `equal` and they differ."""
    if settings.schedule == "equal" and settings.training.early_stopping_patience is not None:
        raise ValueError(
            "With `--schedule equal` all methods take the same number of steps. Leave `early_stopping_patience` out, "
            "or compare with `--schedule published`."
        )
    shared = count_encoder_steps(settings.training.for_stage(1, "."), num_videos)
    steps = {}
    for variant in variants:
        args = settings.training_arguments(variant.method)
        own = count_encoder_steps(args.for_stage(args.stages[0], "."), num_videos)
        steps[variant.name] = shared if not own and variant.needs == REFERENCE_METHOD else own
    if settings.schedule == "equal" and (different := {name: n for name, n in steps.items() if n != shared}):
        listed = ", ".join(f"{name} {number}" for name, number in different.items())
        raise ValueError(
            f"With `--schedule equal` every encoder takes the recipe's {shared} steps, but {listed} by the method's "
            "own defaults. Compare with `--schedule published`."
        )
    return steps
