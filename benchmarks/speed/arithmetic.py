"""FLOPs of the network, and the training time on other machines that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.model.modeling_echomen import R2Plus1DEncoder


__all__ = ["Accelerators", "Recipe", "TrainingEstimate", "encoder_flops", "estimate_training"]


@dataclass(frozen=True)
class Recipe:
    """Size of stage 1 of a recipe. The defaults are those of the paper on EchoNet-Dynamic."""

    train_videos: int = 7465
    val_videos: int = 1288  # one clip of each per epoch
    num_views: int = 2  # crops of each clip
    epochs: int = 40


@dataclass(frozen=True)
class Accelerators:
    """Assumed machines."""

    count: int = 1  # they share each batch
    peak_flops: float = 156e12  # of one; an A100 in TF32 according to its data sheet
    utilisation: float = 0.3  # share of the peak that a training reaches

    @property
    def flops(self) -> float:
        """FLOP/s of all machines together."""
        return self.count * self.peak_flops * self.utilisation


@dataclass(frozen=True)
class TrainingEstimate:
    """Time of a training that only waits for arithmetic."""

    total_flops: float
    hours: float
    videos_per_second: float  # to be read

    def loader_cores(self, seconds_per_item: float) -> float:
        """Number of CPU cores needed to read the items."""
        return self.videos_per_second * seconds_per_item


def encoder_flops(config: EchoMENConfig, training: bool = False) -> int:
    """FLOPs of the encoder for one clip. A multiplication and an addition count as two."""
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
    """Estimate the time of stage 1, including the validation clips."""
    recipe = recipe if recipe is not None else Recipe()
    training = recipe.train_videos * recipe.num_views * encoder_flops(config, training=True)
    validation = recipe.val_videos * encoder_flops(config)
    total = recipe.epochs * (training + validation)
    seconds = total / accelerators.flops
    items = recipe.epochs * (recipe.train_videos + recipe.val_videos)
    return TrainingEstimate(total_flops=total, hours=seconds / 3600, videos_per_second=items / seconds)
