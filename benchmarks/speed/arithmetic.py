"""What follows from the sizes of network and data set without measuring: FLOPs, and hours of other machines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.model.modeling_echomen import R2Plus1DEncoder


__all__ = ["Accelerators", "Recipe", "TrainingEstimate", "encoder_flops", "estimate_training"]


@dataclass(frozen=True)
class Recipe:
    """What stage 1 of a recipe computes.

    Args:
        train_videos: Videos of the training split; EchoNet-Dynamic has 7,465.
        val_videos: Videos of the validation split, one clip of each per epoch; EchoNet-Dynamic has 1,288.
        num_views: Crops of each clip.
        epochs: Epochs.
    """

    train_videos: int = 7465
    val_videos: int = 1288
    num_views: int = 2
    epochs: int = 40


@dataclass(frozen=True)
class Accelerators:
    """Machines that are supposed.

    Args:
        count: Number of them, which share each batch.
        peak_flops: Largest FLOP/s of one; 156e12 is an A100's in TF32 according to its data sheet.
        utilisation: Share of it that a training reaches.
    """

    count: int = 1
    peak_flops: float = 156e12
    utilisation: float = 0.3

    @property
    def flops(self) -> float:
        """FLOP/s of all together."""
        return self.count * self.peak_flops * self.utilisation


@dataclass(frozen=True)
class TrainingEstimate:
    """Time that a training takes if arithmetic is all that it waits for.

    Args:
        total_flops: FLOPs of the training.
        hours: Hours.
        videos_per_second: Training items that must be read in a second.
    """

    total_flops: float
    hours: float
    videos_per_second: float

    def loader_cores(self, seconds_per_item: float) -> float:
        """Find how many cores read items fast enough.

        Args:
            seconds_per_item: Time in which one core reads a training item, in seconds.

        Returns:
            Number of cores, not rounded.
        """
        return self.videos_per_second * seconds_per_item


def encoder_flops(config: EchoMENConfig, training: bool = False) -> int:
    """Count the floating-point operations of the encoder for one clip; a multiplication and an addition are two.

    Args:
        config: Configuration of the model.
        training: Whether to count the backward pass too.

    Returns:
        FLOPs of convolutions, by PyTorch's counter.
    """
    with torch.device("meta"):
        encoder = R2Plus1DEncoder(config).train(training)
        clip = torch.empty(1, config.num_frames, config.num_channels, config.image_size, config.image_size)
        counter = FlopCounterMode(display=False)
        with counter, torch.set_grad_enabled(training):
            embedding = encoder(clip)
            if training:
                embedding.sum().backward()
    return counter.get_total_flops()


def estimate_training(
    config: EchoMENConfig, accelerators: Accelerators, recipe: Recipe | None = None
) -> TrainingEstimate:
    """Estimate stage 1.

    Args:
        config: Configuration of the model.
        accelerators: Machines.
        recipe: Recipe; the paper's without.

    Returns:
        The estimate. Forward and backward pass of every view, and the forward pass of the validation clips.
    """
    recipe = recipe if recipe is not None else Recipe()
    training = recipe.train_videos * recipe.num_views * encoder_flops(config, training=True)
    validation = recipe.val_videos * encoder_flops(config)
    total = recipe.epochs * (training + validation)
    seconds = total / accelerators.flops
    items = recipe.epochs * (recipe.train_videos + recipe.val_videos)
    return TrainingEstimate(total_flops=total, hours=seconds / 3600, videos_per_second=items / seconds)
