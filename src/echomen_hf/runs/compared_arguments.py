"""Training arguments that decide the result of a run; the others decide place, speed or logging."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from transformers import TrainingArguments


__all__ = ["compared_arguments"]

# transformers does not say which of its arguments decide the result. This lists those that do, and not the others, so
# that arguments which a later version adds do not stop a run from being resumed.
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
# The batch of a process and their number say what `total_train_batch_size` says.
_OWN_WITHOUT_EFFECT = {"keep_large_blocks", "stage", "total_train_batch_size"}


def compared_arguments(names: Iterable[str] = ()) -> frozenset[str]:
    """Choose those of transformers and, out of `names`, those of this package."""
    own = set(names) - {field.name for field in fields(TrainingArguments)} - _OWN_WITHOUT_EFFECT
    return _OF_TRANSFORMERS | own
