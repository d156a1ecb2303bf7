"""UVT's loss: squared errors of the ejection fraction and of the phase of the heart."""

from __future__ import annotations

from typing import Any

import torch

from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer
from .uvt_clips import UVTTrainingClips, UVTVideoProcessor
from .uvt_model import UVTModel


__all__ = ["UVT", "UVTLoss"]

EJECTION_FRACTION_WEIGHT = 5.0


class UVTLoss(MethodLoss):
    """Five times the squared error of the fraction between 0 and 1, plus that of the phase where it is known."""

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a `UVTOutput`, see `MethodLoss`."""
        regression = ((outputs.regression.float() - labels.float()) / 100).square().mean()
        # Times 0, since with several processes every trained parameter needs a gradient.
        phase = outputs.phase_loss if outputs.phase_loss is not None else 0.0 * outputs.phase.sum()
        return EJECTION_FRACTION_WEIGHT * regression + phase, {"loss_regression": regression, "loss_phase": phase}


UVT = Method(
    name="uvt",
    title="UVT",
    source="Reynaud et al., Ultrasound video transformers for cardiac ejection fraction estimation, MICCAI 2021: beat "
    "mirrored in training, whole video in windows of 128 frames in testing. Frames are resized to 128 pixels; the "
    "numbers of epochs and of videos per step are not known, so those of the comparison are kept.",
    group="rival",
    loss=UVTLoss,
    trainer_class=ArchitectureTrainer,
    model_class=UVTModel,
    processor_class=UVTVideoProcessor,
    training_clips=UVTTrainingClips,
    training_defaults={"stage": "1", "num_views": 1},
    published_training={
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
    },
)
