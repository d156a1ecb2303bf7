"""Stage 2: experts and aggregator on a fixed encoder (section 2.2 of the paper)."""

from __future__ import annotations

from typing import Any

import torch

from ..labels import ExpertWeightTable
from ..losses import ReweightedRegressionLoss
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from .arguments import EchoMENTrainingArguments
from .embeddings import TrainingEmbeddings
from .expert_solution import set_experts_to_their_optimum
from .stage import Loss, Stage


__all__ = ["Stage2"]


class Stage2(Stage):
    """Trains every expert by its own re-weighted loss, and the aggregator by the regression loss of the ensemble."""

    def __init__(self, args: EchoMENTrainingArguments, model: EchoMENModel, train_labels: torch.Tensor | None) -> None:
        super().__init__(args, model, train_labels)
        self.expert_loss, self.aggregator_loss = None, None
        if train_labels is not None:
            bins = (args.expert_bin_width, args.expert_min_count)
            self.expert_loss = ReweightedRegressionLoss(
                ExpertWeightTable(train_labels, model.config.num_experts, *bins)
            )
            self.aggregator_loss = ReweightedRegressionLoss(
                ExpertWeightTable(train_labels, 1, *bins, exponents=[args.aggregator_weight_exponent])
            )

    def prepare(self, model: EchoMENModel, train_dataset: Any) -> None:
        """Fix all but experts and aggregator; with `least_squares`, solve the experts and fix them too."""
        solve = self.args.expert_solver == "least_squares"
        if solve and not isinstance(train_dataset, TrainingEmbeddings):
            raise ValueError(
                "Experts are solved in closed form from embeddings: set `embedding_draws`, or pass "
                "`TrainingEmbeddings` as `train_dataset`."
            )
        model.config.prediction_head = "experts"
        model.config.expert_bin_width = self.args.expert_bin_width
        model.config.expert_min_count = self.args.expert_min_count
        model.freeze_encoder(True)
        if model.adapter is not None:
            model.adapter.requires_grad_(False)
        model.projector.requires_grad_(False)
        model.regression_head.requires_grad_(False)
        model.experts.requires_grad_(not solve)
        # Without its softmax in the ensemble the aggregator gets no gradient, which DistributedDataParallel refuses.
        model.aggregator.requires_grad_(model.config.expert_aggregation == "aggregator")
        if solve and self.expert_loss is not None:
            table, weight_decay = self.expert_loss.weight_table, self.args.weight_decay
            set_experts_to_their_optimum(model, train_dataset, table, weight_decay)

    def loss(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch."""
        if self.expert_loss is None or self.aggregator_loss is None:
            raise ValueError("Stage 2 weighs samples by the training labels: pass `train_labels` or `train_dataset`.")
        experts = self.expert_loss(outputs.expert_predictions, labels)
        predictions = outputs.expert_predictions
        if self.args.aggregator_gradients == "detached":
            predictions = predictions.detach()
        ensemble = (outputs.expert_weights * predictions).sum(dim=-1)
        aggregator = self.aggregator_loss(ensemble.unsqueeze(-1), labels)
        return experts + aggregator, {"loss_experts": experts, "loss_aggregator": aggregator}

    def set_learning_rates(self, optimizer: torch.optim.Optimizer, model: EchoMENModel) -> None:
        """Multiply the aggregator's learning rate by `aggregator_learning_rate_factor`."""
        factor = self.args.aggregator_learning_rate_factor
        if factor == 1:
            return
        aggregator = {id(parameter) for parameter in model.aggregator.parameters()}
        for group in list(optimizer.param_groups):
            own = [parameter for parameter in group["params"] if id(parameter) in aggregator]
            if own:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in aggregator]
                optimizer.add_param_group({**group, "params": own, "lr": group["lr"] * factor})
