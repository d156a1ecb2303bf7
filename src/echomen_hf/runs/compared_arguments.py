"""The training arguments that decide what a run computes; all others say where, how fast or how loudly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from transformers import TrainingArguments


__all__ = ["compared_arguments"]

# A list of these, and not of the others, since a later version of transformers may add to the others.
_OF_TRANSFORMERS = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "bf16",
        "data_seed",
        "dataloader_drop_last",
        "eval_steps",
        "eval_strategy",
        "fp16",
        "gradient_accumulation_steps",
        "learning_rate",
        "load_best_model_at_end",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_steps",
        "num_train_epochs",
        "optim",
        "optim_args",
        "optim_target_modules",
        "per_device_train_batch_size",
        "save_steps",
        "save_strategy",
        "seed",
        "train_sampling_strategy",
        "warmup_steps",
        "weight_decay",
    }
)
_OWN_OTHERS = {"keep_large_blocks", "stage"}


def compared_arguments(names: Iterable[str] = ()) -> frozenset[str]:
    """Choose the arguments that decide what a run computes.

    Args:
        names: Names of training arguments, those of transformers and this package's own.

    Returns:
        All own ones but those that say how fast, and those of transformers' that decide.
    """
    own = set(names) - {field.name for field in fields(TrainingArguments)} - _OWN_OTHERS
    return _OF_TRANSFORMERS | own
