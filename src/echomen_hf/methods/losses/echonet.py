"""EchoNet-Dynamic's own regression (Ouyang et al. 2020): one linear head, plain mean squared error."""

from __future__ import annotations

from ..method import Method
from ..method_trainer import MethodLoss, MethodTrainer


__all__ = ["ECHONET", "ECHONET_SCHEDULE"]

ECHONET_SCHEDULE = {
    "num_train_epochs": 45,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "lr_decay_epochs": 15,
    "lr_decay_factor": 0.1,
    "weight_decay": 1e-4,
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": 20,
}
"""45 epochs of SGD at 1e-4, times 0.1 every 15; also for methods that were never published on EchoNet-Dynamic."""

ECHONET = Method(
    name="echonet",
    title="EchoNet",
    source="Ouyang et al., Video-based AI for beat-to-beat assessment of cardiac function, Nature 2020.",
    group="rival",
    loss=MethodLoss,
    trainer_class=MethodTrainer,
    training_defaults={"stage": "1", "num_views": 1},
    published_training=ECHONET_SCHEDULE,
)
