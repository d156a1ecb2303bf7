"""Graph of the encoder for other runtimes."""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedConfig

from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel
from ...model.r2plus1d_echomen import R2Plus1DEncoder
from .bf16_rounding import round_filters
from .engine import require_encoder
from .folding import fold_batch_norms


__all__ = ["INPUT_NAME", "OUTPUT_NAME", "ClipShape", "FoldedEncoder", "clip_array", "trace_encoder"]

INPUT_NAME = "pixel_values"
OUTPUT_NAME = "embedding"


class ClipShape(NamedTuple):
    """Shape of one clip."""

    num_frames: int
    num_channels: int
    height: int
    width: int

    @classmethod
    def of(cls, config: EchoMENConfig) -> ClipShape:
        """Read the shape from a configuration."""
        return cls(config.num_frames, config.num_channels, config.image_size, config.image_size)


class FoldedEncoder(NamedTuple):
    """An encoder without batch normalisation, in single precision on the CPU, and its graph for any batch size."""

    module: nn.Module
    program: torch.export.ExportedProgram
    clip_shape: ClipShape

    @property
    def convolution_weights(self) -> dict[str, NDArray]:
        """Weights of every convolution, float32, under the name of its layer."""
        layers = self.module.named_modules()
        return {
            name: layer.weight.detach().numpy() for name, layer in layers if isinstance(layer, (nn.Conv2d, nn.Conv3d))
        }


def trace_encoder(model: EchoMENModel, *, for_bf16: bool = False) -> FoldedEncoder:
    """Fold batch normalisation into the convolutions and record the computation.

    With `for_bf16`, weights are rounded for a runtime that turns them to bfloat16.
    """
    require_encoder(model)
    encoder: nn.Module = copy.deepcopy(model.encoder).cpu().float()
    if isinstance(encoder, R2Plus1DEncoder):
        encoder = fold_batch_norms(encoder)
        if for_bf16:
            round_filters(encoder)
    shape = ClipShape.of(model.config)
    try:
        # Two clips: a batch of one would be taken for a constant.
        program = torch.export.export(
            encoder.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
    except Exception as error:  # whatever the code of another library raises on the way
        if isinstance(encoder, R2Plus1DEncoder):
            raise
        kind = cast(PreTrainedConfig, model.config.encoder_config).model_type
        raise ValueError(
            f"The encoder of this model ({kind}) cannot be converted for another runtime; use engine 'torch': "
            + " ".join(str(error).split())[:300]
        ) from error
    return FoldedEncoder(encoder, program, shape)


def clip_array(pixel_values: torch.Tensor, clip_shape: ClipShape) -> NDArray:
    """Convert clips of the right shape to float32 for another runtime."""
    if pixel_values.ndim != 5 or tuple(pixel_values.shape[1:]) != tuple(clip_shape):
        raise ValueError(
            f"`pixel_values` must have shape (batch, {', '.join(map(str, clip_shape))}), for which this engine was "
            f"made, got {tuple(pixel_values.shape)}; the engine `torch` takes clips of any length and size."
        )
    return pixel_values.detach().to("cpu", torch.float32).contiguous().numpy()
