"""Base classes of networks of another architecture than EchoMEN's, and of their training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ...losses import squared_error
from ...model.configuration_echomen import ClipConfig
from ...model.heads_echomen import EchoMENRegressionHead
from ...model.modeling_echomen import EchoMENOutput
from ...model.video_encoder_echomen import check_pixel_values
from ...training.stage import Stage
from ..method_trainer import MethodStage, MethodTrainer


__all__ = ["ArchitectureTrainer", "ClipModel", "present_frames", "single_prediction"]

Output = TypeVar("Output", bound=EchoMENOutput)


def single_prediction(
    ejection_fraction: torch.Tensor,
    output_class: type[Output] = EchoMENOutput,
    labels: torch.Tensor | None = None,
    **parts: Any,
) -> Output:
    """Make the output of a network without experts, whose prediction is that of a single expert with weight 1.

    Args:
        ejection_fraction: EF in percent, shape (B,).
        output_class: Class of the output; a dataclass derived from `EchoMENOutput` if it has more parts.
        labels: EF in percent, shape (B,); with them the output has their squared error as `loss`.
        parts: Further parts, such as `embedding` or an uncertainty.
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


class ArchitectureStage(MethodStage):
    """The one stage of a network, of which every parameter is trained."""

    def prepare(self, model: Any, train_dataset: Any) -> None:
        """Fix nothing."""

    def leave(self, model: Any) -> None:
        """Leave everything as it is."""


class ArchitectureTrainer(MethodTrainer):
    """Trains every parameter of a network of any architecture by the loss of a method, in one stage."""

    stage_classes: Mapping[str, Callable[..., Stage]] = {"1": ArchitectureStage}


class ClipModel(PreTrainedModel):
    """Base of networks that estimate an ejection fraction from a clip.

    Linear layers are initialised with N(0, `initializer_range`) if the configuration has that field, otherwise, like
    convolutions, as in PyTorch; biases are 0.
    """

    config_class = ClipConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    # The Trainer divides by the gradient accumulation steps only if the model does not claim to do so itself.
    accepts_loss_kwargs = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, EchoMENRegressionHead):
            init.normal_(module.weight, std=self.config.head_initializer_range)
            init.constant_(module.bias, self.config.initial_ejection_fraction)
        elif isinstance(module, (nn.Linear, nn.Conv3d)):
            spread = getattr(self.config, "initializer_range", None)
            if spread is not None and isinstance(module, nn.Linear):
                init.normal_(module.weight, std=spread)
            else:
                init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm3d, nn.LayerNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm3d):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
                init.zeros_(module.num_batches_tracked)

    def channels_first(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Check clips, and bring them to the order and precision of convolutions."""
        check_pixel_values(pixel_values, self.config.num_channels)
        return pixel_values.to(self.dtype).transpose(1, 2)  # (B, T, C, H, W) -> (B, C, T, H, W)


def present_frames(pixel_values: torch.Tensor) -> torch.Tensor:
    """Mark the frames, (B, T), of clips, (B, T, C, H, W), that are not padding after the end of a short video.

    The video processor pads with zeros, which no frame of a video equals: an all-black one is negative. In a clip of
    zeros only, all frames count.
    """
    present = pixel_values.ne(0).flatten(2).any(dim=2)  # (B, T, C, H, W) -> (B, T)
    return present | ~present.any(dim=1, keepdim=True)
