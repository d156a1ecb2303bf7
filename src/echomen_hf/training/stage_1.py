"""Stage 1: regression and contrast (section 2.1 of the paper)."""

from __future__ import annotations

from typing import Any, cast

import torch

from ..losses import LabelDistance, LDWSupConLoss, squared_error
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from .arguments import EchoMENTrainingArguments
from .embeddings import TrainingEmbeddings
from .encoder_training import merge_low_rank, train_part_of_encoder
from .gather import loss_of_all_processes
from .stage import Loss, Stage


__all__ = ["Stage1"]


class Stage1(Stage):
    """Trains encoder, adapter, projector and regression head by the regression loss plus lambda times the contrast."""

    def __init__(self, args: EchoMENTrainingArguments, model: EchoMENModel, train_labels: torch.Tensor | None) -> None:
        super().__init__(args, model, train_labels)
        self.contrastive_loss = LDWSupConLoss(
            temperature=args.contrastive_temperature,
            label_bin_width=args.positive_bin_width or None,
            distance=cast(LabelDistance, args.label_distance),
            distance_scale=args.label_distance_scale,
            train_labels=train_labels,
        ).to(args.device)

    def prepare(self, model: EchoMENModel, train_dataset: Any) -> None:
        """Fix experts, aggregator, and the part of the encoder that is not trained."""
        model.config.prediction_head = "regression"
        trained = "none" if isinstance(train_dataset, TrainingEmbeddings) else self.args.train_encoder
        train_part_of_encoder(model, trained, self.args.lora_rank)
        if model.adapter is not None:
            model.adapter.requires_grad_(True)
        model.projector.requires_grad_(True)
        model.regression_head.requires_grad_(True)
        model.experts.requires_grad_(False)
        model.aggregator.requires_grad_(False)

    def leave(self, model: EchoMENModel) -> None:
        """Add what low-rank training has found to the weights, and let everything be trained again."""
        merge_low_rank(model.encoder)
        super().leave(model)

    def loss(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch; pairs reach over all processes."""
        regression = squared_error(outputs.regression, labels)
        projections = outputs.projection.unflatten(0, (-1, num_views))  # (B * V, P) -> (B, V, P)
        contrastive = loss_of_all_processes(self.contrastive_loss, projections, labels[::num_views])
        loss = regression + self.args.contrastive_weight * contrastive
        return loss, {"loss_regression": regression, "loss_contrastive": contrastive}
