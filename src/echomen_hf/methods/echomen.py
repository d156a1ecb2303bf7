"""EchoMEN as a method among the others."""

from __future__ import annotations

from ..training import EchoMENTrainer
from .losses.echonet import ECHONET_SCHEDULE
from .method import Method


__all__ = ["ECHOMEN", "ECHOMEN_SCHEDULE"]

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
    trainer_class=EchoMENTrainer,
    published_training=ECHOMEN_SCHEDULE,
)
