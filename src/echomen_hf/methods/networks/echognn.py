"""EchoGNN's loss: absolute error plus a classification of the ejection fraction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer
from .echognn_model import EchoGNNModel


__all__ = ["ECHOGNN", "EchoGNNLoss"]


class EchoGNNLoss(MethodLoss):
    """Absolute error of the fraction between 0 and 1, plus the cross-entropy of its class times a small weight.

    Args:
        train_labels: Not used.
        classification_weight: Factor on the cross-entropy.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, classification_weight: float = 0.001) -> None:
        super().__init__(train_labels)
        if classification_weight < 0:
            raise ValueError(f"`classification_weight` must not be negative, got {classification_weight}.")
        self.classification_weight = classification_weight

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of an `EchoGNNOutput`, see `MethodLoss`; an edge of classes belongs to the upper one."""
        regression = (outputs.regression.float() - labels.float()).abs().mean() / 100
        edges = torch.tensor(model.config.class_edges, dtype=torch.float32, device=labels.device)
        classes = torch.bucketize(labels.float(), edges, right=True)
        classification = F.cross_entropy(outputs.class_logits.float(), classes)
        loss = regression + self.classification_weight * classification
        return loss, {"loss_regression": regression, "loss_classification": classification}


ECHOGNN = Method(
    name="echognn",
    title="EchoGNN",
    source="Mokhtari et al., EchoGNN: explainable ejection fraction estimation with graph neural networks, MICCAI "
    "2022. The width of the attention encoder is chosen to give the 1.7 million parameters that EchoGNN is quoted "
    "with; the number of epochs is not known, so that of the comparison is kept.",
    group="rival",
    loss=EchoGNNLoss,
    trainer_class=ArchitectureTrainer,
    model_class=EchoGNNModel,
    training_defaults={"stage": "1", "num_views": 1},
    # AdamW without weight decay is Adam.
    published_training={
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
        "per_device_train_batch_size": 80,
    },
)
