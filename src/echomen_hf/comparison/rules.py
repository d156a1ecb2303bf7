"""The rules that make a comparison fair, and the checks that hold it to them.

1. Every method is trained on the same videos of TRAIN, from the same encoder weights for the same seed if it has the
   same encoder, and sees the videos in the same order.
2. Schedule `equal`: every method takes the same number of optimiser steps on its encoder, at the same batch size. For
   a method of one stage these are all of its steps. The steps of a second stage, which trains linear heads on the
   encoder as it is, come on top; no method of one stage takes fewer encoder steps than EchoMEN. Nothing may end a
   training early.
   Schedule `published`: every method takes the steps, the rates and the batch size of its publication; a method that
   was never published on EchoNet-Dynamic takes EchoNet's.
3. No method is tuned. All train with the settings of the recipe and the options of their publications. Options that a
   recipe gives to single methods are listed in the record of the comparison and below its tables.
4. The epoch to keep is chosen on VAL, by one metric for all.
5. TEST is opened once per cell, after its model has been chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..training import EchoMENTrainingArguments
from .settings import ComparisonSettings
from .variants import REFERENCE_METHOD, Variant


__all__ = ["count_encoder_steps", "require_equal_steps"]


def count_encoder_steps(args: EchoMENTrainingArguments, num_videos: int) -> int:
    """Count the optimiser steps that change an encoder.

    Args:
        args: Training arguments of the method.
        num_videos: Training videos.

    Returns:
        Steps of stage 1; 0 for a method that takes another one's stage 1.
    """
    if 1 not in args.stages:
        return 0
    if args.max_steps > 0:
        return args.max_steps
    batch = args.per_device_train_batch_size * args.world_size
    batches = num_videos // batch if args.dataloader_drop_last else math.ceil(num_videos / batch)
    steps_per_epoch = max(math.ceil(batches / args.gradient_accumulation_steps), 1)
    return math.ceil(steps_per_epoch * args.num_train_epochs)


def require_equal_steps(settings: ComparisonSettings, variants: Sequence[Variant], num_videos: int) -> dict[str, int]:
    """Count the encoder's optimiser steps of every method, and hold the schedule `equal` to its rule.

    Args:
        settings: Settings of the comparison.
        variants: What is compared.
        num_videos: Training videos.

    Returns:
        Steps by name; a variant without a training of its own has those of EchoMEN.

    Raises:
        ValueError: If, with the schedule `equal`, a method would take other steps than the recipe says, or a training
            might end early.
    """
    if settings.schedule == "equal" and settings.training.early_stopping_patience is not None:
        raise ValueError(
            "With `--schedule equal` all methods take the same number of steps: leave `early_stopping_patience` out, "
            "or compare with `--schedule published`."
        )
    steps = {}
    for variant in variants:
        args = settings.training_arguments(variant.method)
        steps[variant.name] = count_encoder_steps(args.for_stage(args.stages[0], "."), num_videos)
    shared = count_encoder_steps(settings.training.for_stage(1, "."), num_videos)
    steps = {
        name: shared if not steps[name] and variant.needs == REFERENCE_METHOD else steps[name]
        for name, variant in ((variant.name, variant) for variant in variants)
    }
    if settings.schedule == "equal" and (different := {name: n for name, n in steps.items() if n != shared}):
        listed = ", ".join(f"{name} {number}" for name, number in different.items())
        raise ValueError(
            f"With `--schedule equal` every encoder takes the recipe's {shared} steps, but {listed} by the method's "
            "own defaults; compare with `--schedule published`."
        )
    return steps
