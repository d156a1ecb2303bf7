"""Training of experts and aggregator on vectors, and the predictions of every head that they are compared with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PrinterCallback, set_seed

from benchmarks.experts.settings import TRAINING, Setting
from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENTrainer, EchoMENTrainingArguments
from echomen_hf.data.clip_vectors import ClipVectors
from echomen_hf.labels import ExpertWeightTable, category_masks
from echomen_hf.metrics import oracle_predictions
from echomen_hf.training.embeddings import EvaluationEmbeddings, TrainingEmbeddings
from echomen_hf.training.expert_solution import set_experts_to_their_optimum, solve_experts
from echomen_hf.training.stage_2 import Stage2


__all__ = ["Splits", "predict_all", "read_splits", "train_heads", "training_split"]

REFITTED = {0.0: "head refitted", 0.5: "head refitted, f^-0.5", 1.0: "head refitted, f^-1"}
"""Titles of the refitted heads by the exponent of their weights."""


@dataclass(frozen=True)
class Splits:
    """Vectors of the three splits."""

    train: TrainingEmbeddings
    validation: EvaluationEmbeddings
    test: EvaluationEmbeddings


def read_splits(vectors: ClipVectors) -> Splits:
    """Take the splits of a file of vectors."""
    rows = {name: list(of_split) for name, of_split in vectors.rows().items()}
    return Splits(
        TrainingEmbeddings.of_vectors(vectors, rows["train"]),
        EvaluationEmbeddings.of_vectors(vectors, rows["validation"]),
        EvaluationEmbeddings.of_vectors(vectors, rows["test"]),
    )


def training_split(train: TrainingEmbeddings, setting: Setting, seed: int) -> TrainingEmbeddings:
    """Thin the training split, or make its labels noisier. The split itself stays as it is."""
    rng = np.random.default_rng(seed)
    labels = np.array(train.ejection_fractions)
    masks = category_masks(labels)
    shares = {"hfref": setting.weak_share}
    if setting.imbalance is not None:
        wanted = masks["hfpef"].sum() / setting.imbalance / masks["hfref"].sum()
        # A split that is less balanced than wanted loses strong hearts instead.
        shares = {"hfref": wanted, "hfmref": wanted} if wanted < 1 else {"hfpef": 1 / wanted}
    kept = np.ones(len(labels), dtype=bool)
    for category, share in shares.items():
        members = np.flatnonzero(masks[category])
        kept[rng.permutation(members)[round(share * len(members)) :]] = False
    if setting.label_noise:
        labels = np.clip(labels + rng.normal(0, setting.label_noise, len(labels)), 1, 99)
    return TrainingEmbeddings(train.embeddings, labels[kept].tolist(), train.positions[:, kept])


class HiddenExpert(nn.Sequential):
    """An expert with one hidden layer."""

    def __init__(self, config: EchoMENConfig) -> None:
        size = config.embedding_size
        output = nn.Linear(size, 1)
        nn.init.constant_(output.bias, config.initial_ejection_fraction)
        super().__init__(nn.Linear(size, size), nn.ReLU(), output)


class HeadsOnVectors(EchoMENModel):
    """EchoMEN's heads, with experts and an aggregator that the package does not have."""

    def __init__(self, config: EchoMENConfig, setting: Setting) -> None:
        super().__init__(config)
        self.aggregator_input = setting.aggregator_input
        if setting.hidden_experts:
            self.experts = nn.ModuleList(HiddenExpert(config) for _ in range(config.num_experts))
        if setting.aggregator_input != "embedding":
            seen = config.num_experts + (config.embedding_size if setting.aggregator_input == "both" else 0)
            self.aggregator.fc1 = nn.Linear(seen, config.aggregator_hidden_size)

    def _weigh_experts(self, embedding: torch.Tensor) -> torch.Tensor:
        if self.aggregator_input == "embedding":
            return self.aggregator(embedding)
        outputs = torch.cat([expert(embedding) for expert in self.experts], dim=-1).detach()
        seen = (outputs - self.config.initial_ejection_fraction) / 10  # of the size of the embedding's numbers
        return self.aggregator(torch.cat([embedding, seen], dim=-1) if self.aggregator_input == "both" else seen)


class SoftTargetStage(Stage2):
    """Trains the aggregator to say how likely each expert is the right one, from the experts' errors.

    The targets are softmax(-e_m^2 / (2 s^2)). Linear experts have one number per dimension of the embedding, and
    thousands of training videos: their errors on these are those on others, and need no cross-validation.
    """

    soft_target = 4.0

    def loss(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Any:
        """Compute the cross-entropy of a batch."""
        errors = outputs.expert_predictions.detach() - labels[:, None]
        targets = (-(errors**2) / (2 * self.soft_target**2)).softmax(dim=-1)
        aggregator_loss: Any = self.aggregator_loss
        weights = aggregator_loss.weight_table(labels)[:, 0]
        loss = -(weights * (targets * outputs.expert_weights.log()).sum(dim=-1)).mean()
        return loss, {"loss_aggregator": loss}


class SoftTargetTrainer(EchoMENTrainer):
    """Trainer with such a stage 2."""

    def __init__(self, *args: Any, soft_target: float, **kwargs: Any) -> None:
        stage = type("Stage", (SoftTargetStage,), {"soft_target": soft_target})
        self.stage_classes = {**EchoMENTrainer.stage_classes, "2": stage}
        super().__init__(*args, **kwargs)


def smallest_count(setting: Setting, num_videos: int) -> float | None:
    """Floor of the bin counts in videos."""
    floor = setting.training.get("expert_min_count")
    return floor * num_videos if floor is not None and floor < 1 else floor


def train_heads(stage_1: EchoMENModel, splits: Splits, setting: Setting, seed: int) -> EchoMENModel:
    """Train experts and aggregator of a setting on the training split of `splits`."""
    config = EchoMENConfig(
        vector_size=stage_1.config.embedding_size,
        num_experts=stage_1.config.num_experts,
        aggregator_hidden_size=stage_1.config.aggregator_hidden_size,
        head_initializer_range=stage_1.config.head_initializer_range,
    )
    set_seed(seed)
    model = HeadsOnVectors(config, setting)
    make_trainer: Any = EchoMENTrainer
    if setting.soft_target is not None:
        make_trainer = partial(SoftTargetTrainer, soft_target=setting.soft_target)
    with tempfile.TemporaryDirectory() as folder:
        args = EchoMENTrainingArguments(
            **{
                **TRAINING,
                **setting.training,
                "expert_min_count": smallest_count(setting, len(splits.train)),
                "output_dir": folder,
                "stage": "2",
                "seed": seed,
                "per_device_eval_batch_size": 4096,
                "metric_for_best_model": "balanced_mae",
                "save_strategy": "best",
                "logging_steps": 10_000,
                "disable_tqdm": True,
                "use_cpu": True,
                "report_to": "none",
            }
        )
        trainer = make_trainer(model=model, args=args, train_dataset=splits.train, eval_dataset=splits.validation)
        trainer.remove_callback(PrinterCallback)
        if setting.starts_solved:
            table = trainer.stage.expert_loss.weight_table
            set_experts_to_their_optimum(model, splits.train, table, args.weight_decay)
        trainer.train()
    return model.eval()


@torch.no_grad()
def predict_all(
    model: EchoMENModel, stage_1: EchoMENModel, splits: Splits, setting: Setting
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Predict VAL and TEST by every head: EF of every video, (N,), by split and title; `weights` is (N, M)."""
    refitted = refit_heads(splits.train, smallest_count(setting, len(splits.train)))
    found = {}
    for split, clips in (("validation", splits.validation), ("test", splits.test)):
        outputs = model(embedding=clips.embeddings)
        experts = mean_by_video(outputs.expert_predictions, clips)  # (N, M)
        heads = {
            "EchoMEN": mean_by_video(outputs.logits[:, 0], clips),
            "mean of experts": experts.mean(axis=1),
            **{f"expert {number}": values for number, values in enumerate(experts.T)},
            "oracle": oracle_predictions(experts, clips.labels),
            "stage-1 head": mean_by_video(stage_1.regression_head(clips.embeddings)[:, 0], clips),
            "weights": mean_by_video(outputs.expert_weights, clips),
        }
        for title, (weight, bias) in refitted.items():
            heads[title] = mean_by_video(clips.embeddings.double() @ weight + bias, clips)
        found[split] = heads
    return found


def refit_heads(train: TrainingEmbeddings, min_count: float | None) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Fit the stage-1 head again by least squares, with the weights of each exponent: weights, (D,), and bias."""
    draws = len(train.positions)
    labels = torch.tensor(train.ejection_fractions, dtype=torch.float64)
    table = ExpertWeightTable(labels, len(REFITTED), min_count=min_count, exponents=list(REFITTED))
    weights, biases = solve_experts(
        train.embeddings[torch.from_numpy(train.positions.reshape(-1))],
        labels.repeat(draws),
        torch.as_tensor(table(labels)).repeat(draws, 1),
        weight_decay=1e-4,
    )
    return dict(zip(REFITTED.values(), zip(weights, biases), strict=True))


def mean_by_video(values: torch.Tensor, clips: EvaluationEmbeddings) -> NDArray[np.float64]:
    """Average the predictions of the clips of every video, (clips, ...) to (N, ...)."""
    array = values.double().numpy()
    totals = np.zeros((len(clips.labels), *array.shape[1:]))
    np.add.at(totals, clips.video_index, array)
    counts = np.bincount(clips.video_index, minlength=len(clips.labels))
    return totals / counts.reshape(-1, *[1] * (array.ndim - 1))
