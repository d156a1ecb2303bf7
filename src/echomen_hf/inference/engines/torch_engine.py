"""Encoder in PyTorch, folded and laid out for speed."""

from __future__ import annotations

import copy
import itertools
import time
from typing import NamedTuple, cast

import torch
from torch import nn

from ...model.float32_precision_echomen import float32_precision
from ...model.modeling_echomen import EchoMENModel
from ...model.r2plus1d_echomen import R2Plus1DEncoder
from ...model.video_processing_echomen import EchoMENVideoProcessor
from .bf16_rounding import round_filters
from .engine import check_engine
from .folding import fold_batch_norms, has_equal_channels, sum_input_channels
from .planar_convolutions import use_planar_convolutions


__all__ = ["CONVOLUTIONS", "DTYPES", "BitwiseReLU", "FastEncoder", "Form", "TorchEngine", "measured_forms"]

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""Type of weights and activations in each precision."""

CONVOLUTIONS = {"fp32": "ieee", "tf32": "tf32", "bf16": None}
"""Arithmetic of single-precision convolutions in each precision, see `float32_precision`."""


class Form(NamedTuple):
    """Ways of computing the same encoder, of which each device has a fastest one."""

    channels_last: bool
    """Whether features have their channels last in memory."""
    planar: bool
    """Whether factorised convolutions run in two dimensions."""
    benchmark: bool = False
    """Whether cuDNN tries its algorithms for every new size of a batch."""


CPU_FORM = Form(channels_last=True, planar=True)
"""The fastest form on every CPU measured so far."""

PLAIN_FORM = Form(channels_last=False, planar=False)


class FastEncoder(nn.Module):
    """Copy of an encoder that computes the same embedding faster.

    Batch normalisation is folded. If the video processor makes all channels equal, only the first one is used, with
    the sum of their weights. The embedding is float32 in any precision.
    """

    def __init__(
        self,
        encoder: R2Plus1DEncoder,
        dtype: torch.dtype,
        processor: EchoMENVideoProcessor | None = None,
        form: Form | None = None,
    ) -> None:
        super().__init__()
        self.device = cast(nn.Conv3d, encoder.stem[0]).weight.device
        self.form = form or (CPU_FORM if self.device.type == "cpu" else PLAIN_FORM)
        # In single precision, whatever the checkpoint has, and on the CPU: not all devices have the double precision
        # that folding and rounding need.
        self.encoder = fold_batch_norms(copy.deepcopy(encoder).cpu().float())
        if processor is not None and has_equal_channels(processor):
            sum_input_channels(self.encoder)
        first = cast(nn.Conv3d, self.encoder.stem[0])
        self.num_channels = first.in_channels
        if dtype == torch.bfloat16:
            round_filters(self.encoder)
        self.encoder.to(self.device, dtype)
        if self.form.channels_last:
            self.encoder.to(memory_format=torch.channels_last_3d)
        if self.form.planar:
            # On CPUs, the temporal kernels of three dimensions are the faster ones in bfloat16.
            use_planar_convolutions(self.encoder, temporal=dtype == torch.float32 or self.device.type != "cpu")

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        clips = pixel_values[:, :, : self.num_channels]  # (B, T, C, H, W) -> (B, T, 1, H, W) if channels are equal
        if self.form.channels_last:
            clips = clips.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d).transpose(1, 2)
        return self.encoder(clips)


class BitwiseReLU(nn.Module):
    """In-place ReLU of bfloat16 features by their bits: read as integers, the negative ones are below zero.

    PyTorch's own takes about ten times as long on CPUs. A NaN whose sign is negative becomes 0.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Replace negative features by 0."""
        features.view(torch.int16).clamp_(min=0)
        return features


class TorchEngine:
    """Runs `FastEncoder` as it is."""

    name = "torch"

    def __init__(self, encoder: FastEncoder, precision: str) -> None:
        self.encoder = encoder
        self.precision = precision
        self.num_channels = encoder.num_channels

    @classmethod
    def from_model(
        cls,
        model: EchoMENModel,
        precision: str = "fp32",
        *,
        processor: EchoMENVideoProcessor | None = None,
        batch_size: int = 4,
    ) -> TorchEngine:
        """Make the engine of a model; on accelerators in the form that is the fastest one there."""
        check_engine(cls.name, precision)
        check_device(precision, model.device)
        form = None
        if model.device.type != "cpu" and not torch.are_deterministic_algorithms_enabled():
            times = measured_forms(model, precision, processor, batch_size)
            form = min(times, key=lambda each: times[each])
        encoder = FastEncoder(model.encoder, DTYPES[precision], processor, form)
        if precision == "bf16" and encoder.device.type == "cpu":
            for parent in list(encoder.modules()):
                for name, module in list(parent.named_children()):
                    if isinstance(module, nn.ReLU):
                        setattr(parent, name, BitwiseReLU())
        return cls(encoder, precision)

    @torch.inference_mode()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, self.encoder.form.benchmark
        try:
            with float32_precision(CONVOLUTIONS[self.precision]):
                return self.encoder(pixel_values.to(self.encoder.device)).float()
        finally:
            torch.backends.cudnn.benchmark = before


_measured: dict[str, dict[Form, float]] = {}


def measured_forms(
    model: EchoMENModel, precision: str, processor: EchoMENVideoProcessor | None = None, batch_size: int = 4
) -> dict[Form, float]:
    """Measure the seconds that a batch takes on the model's device in every form, once for a network and a batch.

    Which form is the fastest depends on the device and its libraries; on a GPU this takes seconds.
    """
    config, device = model.config, model.device
    shape = (batch_size, config.num_frames, config.num_channels, config.image_size, config.image_size)
    layers = (config.depths, config.hidden_sizes, config.stem_stride)
    key = str((device, precision, shape, layers, processor is not None and has_equal_channels(processor)))
    if key not in _measured:
        clips = torch.zeros(shape, device=device)
        choices = itertools.product((False, True), (False, True), (False, True) if device.type == "cuda" else (False,))
        _measured[key] = {
            form: seconds_of(
                TorchEngine(FastEncoder(model.encoder, DTYPES[precision], processor, form), precision), clips
            )
            for form in itertools.starmap(Form, choices)
        }
    return _measured[key]


def seconds_of(engine: TorchEngine, clips: torch.Tensor, repetitions: int = 3) -> float:
    """Measure the shortest time of a batch; the first ones choose kernels and are not counted."""
    times = []
    for repetition in range(2 + repetitions):
        start = time.perf_counter()
        engine(clips)[0, 0].item()  # waits for the device
        if repetition >= 2:
            times.append(time.perf_counter() - start)
    return min(times)


def check_device(precision: str, device: torch.device) -> None:
    """Refuse TF32 where there is none."""
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"Precision 'tf32' is that of NVIDIA GPUs, and the model is on {device.type}: choose fp32.")
