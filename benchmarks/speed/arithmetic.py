"""FLOPs and memory of the network, and the training time on other machines that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.r2plus1d_echomen import R2Plus1DBlock, R2Plus1DEncoder


__all__ = [
    "Accelerators",
    "Recipe",
    "StepMemory",
    "TrainingEstimate",
    "encoder_flops",
    "estimate_training",
    "step_memory",
]


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


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step with SGD and momentum holds at once."""

    weights: int  # with their gradients and momentum, and in mixed precision a copy of them
    activations: int  # kept from the forward pass for the backward pass
    recomputed: int  # those of the largest block, when activations are recomputed

    @property
    def total(self) -> int:
        """All together, without the temporary memory of single operations."""
        return self.weights + self.activations + self.recomputed


def step_memory(
    config: EchoMENConfig, num_clips: int, *, bf16: bool = False, checkpointing: bool = False
) -> StepMemory:
    """Count the memory of a step of stage 1 from what autograd saves, on tensors without numbers."""
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model = EchoMENModel(config).train()
        weights = sum(parameter.numel() for parameter in model.parameters())
        clips = torch.empty(num_clips, config.num_frames, config.num_channels, config.image_size, config.image_size)
        entered: list[tuple[nn.Module, torch.Tensor]] = []
        for block in model.modules():
            if isinstance(block, R2Plus1DBlock):
                block.register_forward_pre_hook(lambda block, inputs: entered.append((block, inputs[0])))
        if checkpointing:
            model.activation_checkpointing_enable()
        activations = saved_bytes(model, pixel_values=clips)
        blocks = entered if checkpointing else []
        model.activation_checkpointing_disable()
        recomputed = [saved_bytes(block, hidden_state) for block, hidden_state in list(blocks)]
    return StepMemory(weights * (4 * 3 + 2 * bf16), activations, max(recomputed, default=0))


def saved_bytes(module: nn.Module, *args: torch.Tensor, **kwargs: torch.Tensor) -> int:
    """Count what a module's forward pass saves besides its parameters, every storage once."""
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(*args, **kwargs)
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    del output
    return sum(storage.nbytes() for key, storage in saved.items() if key not in own)
