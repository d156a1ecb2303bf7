"""Training of the outliner of the left ventricle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..outline.outliner import LeftVentricleOutliner, LeftVentricleOutlinerConfig
from ..outline.samples import OutlineSamples
from ..runs.files import write_json
from .allocator import keep_large_blocks
from .trainer import EpochOfDataset


__all__ = ["TRAINING_LOG_NAME", "VALIDATION_RECORDINGS", "train_outliner"]

TRAINING_LOG_NAME = "training_log.json"
"""Settings, losses and validation results of a training, in the folder of the model."""

VALIDATION_RECORDINGS = 320
"""Simulated recordings whose Dice coefficient is measured after every epoch."""


def train_outliner(
    train_files: Sequence[Path],
    validation_files: Sequence[Path],
    output_dir: str | os.PathLike[str],
    *,
    model: LeftVentricleOutliner | None = None,
    epochs: float = 10,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    save_steps: int = 200,
    description: dict[str, Any] | None = None,
    **arguments: Any,
) -> LeftVentricleOutliner:
    """Train an outliner on samples, and save it; a training that was interrupted continues where it last saved.

    Args:
        train_files: Files of `write_samples`.
        validation_files: The same, for the Dice coefficient after every epoch.
        output_dir: Folder of the model and the checkpoints.
        model: Outliner to begin with. Defaults to a new one.
        epochs: Passes over the samples.
        batch_size: Samples of a step.
        learning_rate: Highest learning rate of AdamW; it rises at first, then falls to 0 as a cosine.
        seed: Seed of the weights, of the order and of the changes to the samples.
        save_steps: Steps from one checkpoint to the next.
        description: What the samples are, for the log.
        arguments: Further arguments of `TrainingArguments`.

    Returns:
        The trained outliner, in evaluation mode.
    """
    keep_large_blocks()
    set_seed(seed)
    model = model if model is not None else LeftVentricleOutliner(LeftVentricleOutlinerConfig())
    model.to(memory_format=torch.channels_last)  # half again as fast on a CPU
    size, offsets = model.config.image_size, model.config.frame_offsets
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(output_dir),
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=2 * batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.04,  # of all
            weight_decay=0.01,
            seed=seed,
            train_sampling_strategy="sequential",  # the samples come in another order in every epoch
            eval_strategy="epoch",
            save_steps=save_steps,
            save_total_limit=1,
            logging_steps=50,
            report_to="none",
            label_names=["labels"],
            remove_unused_columns=False,
            **arguments,
        ),
        train_dataset=OutlineSamples(train_files, size, offsets, seed),
        eval_dataset=OutlineSamples(validation_files, size, offsets, is_changed=False),
        compute_metrics=_metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits[:, 0] > 0,
        callbacks=[EpochOfDataset()],
    )
    checkpoint = get_last_checkpoint(str(output_dir)) if os.path.isdir(output_dir) else None
    trainer.train(resume_from_checkpoint=checkpoint)
    model.save_pretrained(output_dir)
    write_json(
        Path(output_dir) / TRAINING_LOG_NAME,
        {
            "data": description or {},
            "settings": {
                "batch_size": batch_size,
                "epochs": epochs,
                "learning_rate": learning_rate,
                "num_samples": len(trainer.train_dataset),
                "seed": seed,
                "steps": trainer.state.global_step,
            },
            "log": trainer.state.log_history,
            "torch": torch.__version__,
        },
    )
    return model.eval()


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Mean Dice of frames with a ventricle, and how many of the others stay empty."""
    found, truth = np.asarray(prediction.predictions, dtype=bool), np.asarray(prediction.label_ids) > 0.5  # (N, S, S)
    is_shown, is_found = np.any(truth, axis=(1, 2)), np.any(found, axis=(1, 2))
    both, either = (found & truth).sum(axis=(1, 2)), found.sum(axis=(1, 2)) + truth.sum(axis=(1, 2))
    metrics = {
        "dice": float((2 * both[is_shown] / either[is_shown]).mean()),
        "share_found": float(is_found[is_shown].mean()),
    }
    if not is_shown.all():
        metrics["share_empty_in_other_views"] = float(1 - is_found[~is_shown].mean())
    return metrics
