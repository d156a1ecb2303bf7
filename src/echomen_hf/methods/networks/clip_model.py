"""What networks of other architectures have in common: checks of the input and initial weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ...model.modeling_echomen import EchoMENRegressionHead
from .clip_configuration import ClipModelConfig


__all__ = ["ClipModel", "check_pixel_values", "present_frames"]


class ClipModel(PreTrainedModel):
    """Base of networks that estimate an ejection fraction from a clip.

    Linear layers begin with N(0, `initializer_range`) if the configuration has that field, else they and convolutions
    as PyTorch does it; biases begin with 0.
    """

    config_class = ClipModelConfig
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
        """Check clips and bring them to the order and precision of convolutions.

        Args:
            pixel_values: Normalised clips, shape (B, T, C, H, W).

        Returns:
            Clips, shape (B, C, T, H, W).

        Raises:
            ValueError: If the shape does not fit the configuration, or the clips are not normalised.
        """
        check_pixel_values(pixel_values, self.config.num_channels)
        return pixel_values.to(self.dtype).transpose(1, 2)  # (B, T, C, H, W) -> (B, C, T, H, W)


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int) -> None:
    """Refuse what are no normalised clips.

    Args:
        pixel_values: Clips.
        num_channels: Channels that the network takes in.

    Raises:
        ValueError: If the shape is not (B, T, channels, H, W), or the clips are not normalised.
    """
    if pixel_values.ndim != 5 or pixel_values.shape[2] != num_channels:
        raise ValueError(
            f"`pixel_values` must have shape (batch, frames, {num_channels}, height, width), got "
            f"{tuple(pixel_values.shape)}."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`pixel_values` must be normalised floating point numbers, got {pixel_values.dtype}; "
            "pass raw frames through the video processor first."
        )


def present_frames(pixel_values: torch.Tensor) -> torch.Tensor:
    """Tell the frames of a video from those that fill a clip up which the video was too short for.

    The video processor fills up with zeros, which no frame of a video is: an all-black one is negative.

    Args:
        pixel_values: Normalised clips, shape (B, T, C, H, W).

    Returns:
        True for frames of the video, shape (B, T); all of them for a clip of nothing but zeros.
    """
    present = pixel_values.ne(0).flatten(2).any(dim=2)  # (B, T, C, H, W) -> (B, T)
    return present | ~present.any(dim=1, keepdim=True)
