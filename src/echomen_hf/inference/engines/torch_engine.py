"""Encoder in PyTorch, folded and laid out for speed."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from ...model.float32_precision_echomen import float32_precision
from ...model.modeling_echomen import EchoMENModel, R2Plus1DEncoder
from ...model.video_processing_echomen import EchoMENVideoProcessor
from .bf16_rounding import round_filters
from .engine import check_engine
from .folding import fold_batch_norms, has_equal_channels, sum_input_channels
from .planar_convolutions import use_planar_convolutions


__all__ = ["DTYPES", "BitwiseReLU", "FastEncoder", "TorchEngine"]

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""Type of weights and activations in each precision."""

CONVOLUTIONS = {"fp32": "ieee", "tf32": "tf32", "bf16": None}
"""Arithmetic of single-precision convolutions in each precision, see `float32_precision`."""


class FastEncoder(nn.Module):
    """Copy of an encoder that computes the same embedding faster.

    Batch normalisation is folded. On CPUs, features have their channels last in memory and convolutions run in two
    dimensions, where the kernels are fastest. If the video processor makes all channels equal, only the first one is
    used, with the sum of their weights. The embedding is float32 in any precision.
    """

    def __init__(
        self, encoder: R2Plus1DEncoder, dtype: torch.dtype, processor: EchoMENVideoProcessor | None = None
    ) -> None:
        super().__init__()
        self.device = cast(nn.Conv3d, encoder.stem[0]).weight.device
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
        self.channels_last = self.device.type == "cpu"
        if self.channels_last:
            self.encoder.to(memory_format=torch.channels_last_3d)
            # In bfloat16 the temporal kernels of three dimensions are the faster ones.
            use_planar_convolutions(self.encoder, temporal=dtype == torch.float32)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        clips = pixel_values[:, :, : self.num_channels]  # (B, T, C, H, W) -> (B, T, 1, H, W) if channels are equal
        if self.channels_last:
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
        cls, model: EchoMENModel, precision: str = "fp32", *, processor: EchoMENVideoProcessor | None = None
    ) -> TorchEngine:
        """Make the engine of a model."""
        check_engine(cls.name, precision)
        check_device(precision, model.device)
        encoder = FastEncoder(model.encoder, DTYPES[precision], processor)
        if precision == "bf16" and encoder.device.type == "cpu":
            for parent in list(encoder.modules()):
                for name, module in list(parent.named_children()):
                    if isinstance(module, nn.ReLU):
                        setattr(parent, name, BitwiseReLU())
        return cls(encoder, precision)

    @torch.inference_mode()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        with float32_precision(CONVOLUTIONS[self.precision]):
            return self.encoder(pixel_values.to(self.encoder.device)).float()


def check_device(precision: str, device: torch.device) -> None:
    """Refuse TF32 where there is none."""
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"Precision 'tf32' is that of NVIDIA GPUs, and the model is on {device.type}: choose fp32.")
