"""Detection and replacement of convolutions whose gradients a processor computes wrongly in bfloat16.

In torch 2.14 with oneDNN, the weight gradient of a (3, 1, 1) kernel over two frames is read from memory that nothing
has written to, on processors with AVX-512 and without AMX: NaN, 1e28 or, worse, something plausible. This
concerns the last stage on clips of 16 frames. Nothing reports it, so training in bfloat16 begins with a comparison of
these layers and, on accelerators, whose kernels depend on the batch, of the gradients of the whole network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import constants
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from ..model.float32_precision_echomen import float32_precision
from ..model.modeling_echomen import EchoMENModel, EchoMENPreTrainedModel
from ..runs.files import read_json, write_json


__all__ = [
    "FullPrecisionConv3d",
    "gradient_errors",
    "guarded_against_bf16",
    "require_right_gradients",
    "temporal_convolutions",
    "wrong_in_bf16",
]

logger = logging.get_logger(__name__)

LARGEST_ERROR = 0.05
"""Relative error above which a bfloat16 result is taken to be wrong; rounding causes about 0.003."""


LARGEST_NETWORK_ERROR = 0.7
"""The same for the gradient of a weight through the whole network, where rounding adds up: to 0.31 in the stem of the
paper's, measured on a CPU. A gradient that has nothing to do with the right one has an error of 1 and more."""

RESULTS_FILE = Path(constants.HF_HOME) / "echomen_hf" / "bf16_gradients.json"


class FullPrecisionConv3d(nn.Conv3d):
    """A convolution that computes in float32 under autocast."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve; (B, C, T, H, W) to float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def temporal_convolutions(model: PreTrainedModel, num_frames: int | None = None) -> dict[str, tuple[nn.Conv3d, int]]:
    """Find the convolutions over time, and the number of frames that each receives, by name."""
    found: dict[str, tuple[nn.Conv3d, int]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:

            def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                found[name] = cast(nn.Conv3d, layer), inputs[0].shape[2]

            handles.append(module.register_forward_pre_hook(note))
    mode, config = model.training, model.config
    # Space does not matter to R(2+1)D: stem and stages halve it until one pixel is left.
    has_own_encoder = isinstance(model, EchoMENModel) and config.encoder_config is None
    side = 2 ** len(config.hidden_sizes) if has_own_encoder else config.image_size
    clip = torch.zeros(1, num_frames or config.num_frames, config.num_channels, side, side, device=model.device)
    try:
        with torch.no_grad():
            model.eval()(pixel_values=clip)  # in evaluation mode, so that batch statistics stay
    finally:
        model.train(mode)
        for handle in handles:
            handle.remove()
    return found


def wrong_in_bf16(model: PreTrainedModel, num_frames: int | None = None) -> dict[str, float]:
    """Find the temporal convolutions whose bfloat16 results or gradients are wrong, with their relative errors.

    Every distinct geometry is tried once, on a small input of random numbers, on the model's device and in its layout.
    """
    errors: dict[tuple[Any, ...], float] = {}
    wrong = {}
    for name, (layer, frames) in temporal_convolutions(model, num_frames).items():
        strides = layer.weight.stride()
        size = (layer.weight.shape, layer.stride, layer.padding, layer.dilation, layer.groups)
        geometry = (type(layer), *size, strides, frames)
        if geometry not in errors:
            errors[geometry] = bf16_error(layer, frames)
        if not errors[geometry] <= LARGEST_ERROR:
            wrong[name] = errors[geometry]
    return wrong


def bf16_error(layer: nn.Conv3d, num_frames: int, batch_size: int = 2, side: int = 4) -> float:
    """Measure the largest relative error of output and gradients in bfloat16; infinite if one is not finite."""
    generator = torch.Generator().manual_seed(0)
    device = layer.weight.device
    side = max(side, *layer.kernel_size[1:])
    shape = (batch_size, layer.in_channels, num_frames, side, side)
    features = torch.randn(shape, generator=generator).to(device)
    if layer.weight.is_contiguous(memory_format=torch.channels_last_3d):
        features = features.contiguous(memory_format=torch.channels_last_3d)
    features.requires_grad_()
    weight = layer.weight.detach().requires_grad_()

    def results(enabled: bool) -> list[torch.Tensor]:
        with torch.enable_grad(), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            # By the layer itself, which is what training runs.
            output = torch.func.functional_call(layer, {"weight": weight}, (features,))
            pattern = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(device)
            gradients = torch.autograd.grad(output, (features, weight), pattern.to(output.dtype))
        return [output.detach(), *gradients]

    worst = 0.0
    for exact, rounded in zip(results(False), results(True)):
        exact, rounded = exact.cpu().double(), rounded.cpu().double()  # not every device has double precision
        error = ((rounded - exact).norm() / exact.norm()).item()
        worst = max(worst, error) if error < float("inf") else float("inf")  # a comparison with NaN is false
    return worst


def gradient_errors(model: PreTrainedModel, num_clips: int, num_frames: int | None = None) -> dict[str, float]:
    """Measure the relative error in bfloat16 of the gradient of every convolution's weight, at the shape of training.

    Batch statistics, which would magnify rounding, are fixed, and nothing is left to chance. In float32 the clips are
    computed one by one, so that the memory of a training in bfloat16 is enough.
    """
    config: Any = model.config
    size = (num_frames or config.num_frames, config.num_channels, config.image_size, config.image_size)
    clips = torch.randn(num_clips, *size, generator=torch.Generator().manual_seed(0)).to(model.device)
    weights = {name: p for name, p in model.named_parameters() if p.ndim == 5 and p.requires_grad}
    if not weights:
        return {}

    def gradients(half: bool, parts: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        total = [torch.zeros_like(weight) for weight in weights.values()]
        for part in parts:
            with torch.enable_grad(), torch.autocast(part.device.type, torch.bfloat16, enabled=half):
                predictions = model(pixel_values=part).regression
            found = torch.autograd.grad(predictions.float().sum(), list(weights.values()))
            total = [one + other for one, other in zip(total, found)]
        return total

    modes = {module: module.training for module in model.modules()}
    model.eval()
    for module in modes:
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # which alone decides whether activations are recomputed
    try:
        with float32_precision("ieee"):
            exact = gradients(False, clips.split(1))
        rounded = gradients(True, (clips,))
    finally:
        for module, mode in modes.items():
            module.training = mode
    norms = torch.stack([gradient.norm() for gradient in exact])
    # A gradient that cancels to next to nothing is all rounding, and moves its weight by next to nothing.
    norms = norms.clamp(min=0.01 * norms.max())
    errors = [((one - other).norm() / norm).item() for one, other, norm in zip(rounded, exact, norms)]
    return {name: error if error < float("inf") else float("inf") for name, error in zip(weights, errors)}


def require_right_gradients(model: PreTrainedModel, num_clips: int, num_frames: int | None = None) -> None:
    """Refuse to train in bfloat16 on an accelerator that computes the network's gradients wrongly at this shape.

    The comparison is made once for a network, a shape, a device and the versions; its result is kept in HF_HOME.
    """
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    layout = next((p.is_contiguous() for p in model.parameters() if p.ndim == 5), None)
    shapes = hash(tuple(tuple(p.shape) for p in model.parameters())) & 0xFFFFFFFF
    versions = (torch.__version__, torch.version.cuda, torch.backends.cudnn.version())
    key = " ".join(map(str, (type(model).__name__, shapes, num_clips, num_frames, layout, name, *versions)))
    try:
        known = read_json(RESULTS_FILE)
    except (OSError, ValueError):
        known = {}
    if key not in known:
        errors = gradient_errors(model, num_clips, num_frames)
        wrong = {weight: error for weight, error in errors.items() if error > LARGEST_NETWORK_ERROR}
        known[key] = {weight: min(error, 1e30) for weight, error in wrong.items()}  # JSON has no infinity
        with suppress(OSError):  # a home that cannot be written to costs a comparison at every start
            write_json(RESULTS_FILE, known)
    if known[key]:
        listed = ", ".join(f"{name} ({error:.2g})" for name, error in list(known[key].items())[:5])
        raise ValueError(
            f"{name} computes gradients of {len(known[key])} weights wrongly in bfloat16 at {num_clips} clips "
            f"(relative error in brackets): {listed}. Train without `--bf16`, with another batch size, or with "
            "another version of PyTorch."
        )


@contextmanager
def guarded_against_bf16(
    model: PreTrainedModel, num_frames: int | None = None, num_clips: int | None = None
) -> Iterator[list[str]]:
    """Compute in float32, within the context, the layers that this processor computes wrongly in bfloat16.

    With `num_clips`, those of a step, the whole network's gradients are then compared, unless it is on the CPU.
    """
    wrong = wrong_in_bf16(model, num_frames)
    layers = [model.get_submodule(name) for name in wrong]
    classes = [type(layer) for layer in layers]
    if wrong:
        listed = ", ".join(f"{name} ({error:.2g})" for name, error in wrong.items())
        logger.warning(
            f"This processor computes {len(wrong)} of the model's convolutions wrongly in bfloat16 at "
            f"{num_frames or model.config.num_frames} frames a clip (relative error in brackets): {listed}. They are "
            "computed in float32."
        )
    try:
        for layer in layers:
            # By its class and not by a function of the instance, which would be shared by copies of the model.
            layer.__class__ = FullPrecisionConv3d
        # EchoCoTr's gradient of a batch was seen to differ from the sum over its clips, in float32 as well.
        if num_clips is not None and model.device.type != "cpu" and isinstance(model, EchoMENPreTrainedModel):
            require_right_gradients(model, num_clips, num_frames)
        yield list(wrong)
    finally:
        for layer, original in zip(layers, classes):
            layer.__class__ = original
