"""EchoCoTr (Muhtaseb and Yaqub, MICCAI 2022): UniFormer-S on long clips, trained by the squared error."""

from __future__ import annotations

from ..method import Method
from ..method_trainer import MethodLoss
from .architecture import ArchitectureTrainer
from .uniformer import UniFormerModel


__all__ = ["ECHOCOTR"]

ECHOCOTR = Method(
    name="echocotr",
    title="EchoCoTr",
    source="Muhtaseb and Yaqub, EchoCoTr: estimation of the left ventricular ejection fraction from spatiotemporal "
    "echocardiography, MICCAI 2022: UniFormer-S on 36 frames, every 4th. Trained from scratch unless weights are "
    "given; without stochastic depth; the schedule's decay is not known and left out.",
    group="rival",
    loss=MethodLoss,
    trainer_class=ArchitectureTrainer,
    model_class=UniFormerModel,
    training_defaults={"stage": "1", "num_views": 1},
    published_training={
        "num_train_epochs": 45,
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
        "per_device_train_batch_size": 25,
    },
)
