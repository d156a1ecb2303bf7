"""What lets a network of another architecture be trained and evaluated as EchoMEN is."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from ...losses import squared_error
from ...model.modeling_echomen import EchoMENOutput
from ..method_trainer import MethodTrainer


__all__ = ["ArchitectureTrainer", "single_prediction"]

Output = TypeVar("Output", bound=EchoMENOutput)


def single_prediction(
    ejection_fraction: torch.Tensor,
    output_class: type[Output] = EchoMENOutput,
    labels: torch.Tensor | None = None,
    **parts: Any,
) -> Output:
    """Make the output of a network without experts: its one prediction is that of a single expert with weight 1.

    Args:
        ejection_fraction: EF in percent, shape (B,).
        output_class: Class of the output; a dataclass derived from `EchoMENOutput` if it has more parts.
        labels: EF in percent, shape (B,); with them the output has their squared error as `loss`.
        parts: Further parts, such as `embedding` or an uncertainty.

    Returns:
        The output, complete for trainer and test protocols.
    """
    if labels is not None:
        parts["loss"] = squared_error(ejection_fraction, labels.view(-1))
    column = ejection_fraction.unsqueeze(-1)  # (B,) -> (B, 1)
    return output_class(
        logits=column,
        expert_predictions=column,
        expert_weights=torch.ones_like(column),
        regression=ejection_fraction,
        **parts,
    )


class ArchitectureTrainer(MethodTrainer):
    """Trains every parameter of a network of any architecture by the loss of a method, in one stage."""

    def prepare_stage(self) -> None:
        """Do nothing: there are no parts to fix."""

    def leave_stage(self) -> None:
        """Do nothing, likewise."""

    def _make_losses(self, train_labels: Any) -> None:
        self._make_method_loss(train_labels)
