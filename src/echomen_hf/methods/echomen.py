"""EchoMEN as a method, and the ablations of the paper's Table 2: EchoMEN without one of its parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..labels import EF_RANGE, HEART_FAILURE_CATEGORIES, BinWeightTable, category_masks, num_label_bins
from ..losses import ReweightedRegressionLoss
from ..model.modeling_echomen import EchoMENModel
from ..training import EchoMENTrainer, EchoMENTrainingArguments
from ..training.stage_2 import Stage2
from .method import ECHONET_SCHEDULE, Method


__all__ = [
    "CATEGORY_EXPERTS",
    "ECHOMEN",
    "MEAN_OF_EXPERTS",
    "PLAIN_SUPCON",
    "STAGE_1_HEAD",
    "CategoryExpertsStage",
    "category_weights",
]

ECHOMEN_SCHEDULE = {
    **ECHONET_SCHEDULE,
    "num_train_epochs": 40,
    "lr_decay_epochs": 10,
    "stage2_num_train_epochs": 20,
    "stage2_learning_rate": None,
    "stage2_optim": None,
    "stage2_optim_args": None,
    "stage2_weight_decay": None,
    "stage2_per_device_train_batch_size": None,
    "stage2_lr_scheduler_type": None,
    "stage2_lr_decay_epochs": None,
    "expert_solver": "gradient",
    "aggregator_learning_rate_factor": 1.0,
    "embedding_draws": 0,
}
"""Section 3.2 of the paper: SGD at 1e-4, times 0.1 every 10 epochs, for 40 epochs of stage 1 and 20 of stage 2."""

ECHOMEN = Method(
    name="echomen",
    title="EchoMEN",
    source="EchoMEN: combating data imbalance in ejection fraction regression via multi-expert network, MICCAI 2024.",
    group="paper",
    loss=None,
    trainer_class=EchoMENTrainer,
    training_defaults={},
    published_training=ECHOMEN_SCHEDULE,
)


def category_weights(train_labels: NDArray[np.float64]) -> BinWeightTable:
    """Give every expert the samples of one heart-failure category, with mean weight 1 over the training set.

    An expert whose category has no training sample learns nothing.

    Args:
        train_labels: EF in percent of the training set, shape (N,).
    """
    low, high = EF_RANGE
    edges = np.linspace(low, high, num_label_bins() + 1)
    of_bins = category_masks((edges[:-1] + edges[1:]) / 2)
    of_samples = category_masks(train_labels)
    smallest_share = 1 / len(train_labels)
    columns = [of_bins[name] / max(of_samples[name].mean(), smallest_share) for name in HEART_FAILURE_CATEGORIES]
    return BinWeightTable(np.stack(columns, axis=1))  # (B, 3)


class CategoryExpertsStage(Stage2):
    """Trains every expert on the samples of one heart-failure category, lowest first, instead of re-weighting."""

    def __init__(self, args: EchoMENTrainingArguments, model: EchoMENModel, train_labels: torch.Tensor | None) -> None:
        super().__init__(args, model, train_labels)
        if train_labels is not None:
            labels = train_labels.numpy()
            empty = [name for name, members in category_masks(labels).items() if not members.any()]
            if empty and args.expert_solver == "least_squares":
                raise ValueError(
                    f"No training video is in {', '.join(empty)}: its expert has no solution in closed form; set "
                    "`expert_solver` to gradient."
                )
            self.expert_loss = ReweightedRegressionLoss(category_weights(labels))


class CategoryExpertsTrainer(EchoMENTrainer):
    """Trainer of EchoMEN with such a stage 2."""

    stage_classes = {**EchoMENTrainer.stage_classes, "2": CategoryExpertsStage}


PLAIN_SUPCON = replace(
    ECHOMEN,
    name="echomen_plain_supcon",
    title="(a) plain SupCon",
    source="Table 2 (a): beta = 1 for every negative pair.",
    group="ablation",
    training_defaults={"label_distance": "none"},
)

STAGE_1_HEAD = replace(
    ECHOMEN,
    name="echomen_stage_1_head",
    title="(b) stage-1 head",
    source="Table 2 (b): the regression head of stage 1, no experts.",
    group="ablation",
    training_defaults={"stage": "1"},
    stage_1_of="echomen",
)

CATEGORY_EXPERTS = replace(
    ECHOMEN,
    name="echomen_category_experts",
    title="(c) one expert per category",
    source="Table 2 (c): every expert trains on the samples of one heart-failure category.",
    group="ablation",
    trainer_class=CategoryExpertsTrainer,
    model_defaults={"num_experts": len(HEART_FAILURE_CATEGORIES)},
    stage_1_of="echomen",
)

MEAN_OF_EXPERTS = replace(
    ECHOMEN,
    name="echomen_mean_of_experts",
    title="(d) mean of experts",
    source="Table 2 (d): experts averaged, no aggregator.",
    group="ablation",
    model_defaults={"expert_aggregation": "mean"},
    # With experts in closed form, nothing would be left to train.
    training_defaults={"expert_solver": "gradient"},
    stage_1_of="echomen",
)
