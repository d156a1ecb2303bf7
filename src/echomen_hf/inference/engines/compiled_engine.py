"""Encoder compiled by `torch.compile`."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ...model.configuration_echomen import EchoMENConfig
from ...model.float32_precision_echomen import float32_precision
from ...model.modeling_echomen import EchoMENModel
from ...model.video_processing_echomen import EchoMENVideoProcessor
from .engine import check_engine
from .torch_engine import CONVOLUTIONS, DTYPES, FastEncoder, check_device


__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Runs `FastEncoder` compiled for one number of clips, so that no other number of clips compiles it again.

    Compiling happens in the constructor, and takes about a minute for the network of the paper. Batches of more clips
    are split, smaller ones are filled up. On CPUs, the number is 1: several clips take as long together as in turn.
    """

    name = "compile"

    def __init__(self, encoder: FastEncoder, precision: str, config: EchoMENConfig, batch_size: int) -> None:
        self.precision = precision
        self.num_channels = encoder.num_channels
        self.batch_size = batch_size
        self.device = encoder.device
        # Weights become constants, which the compiler may lay out as it likes.
        self.encoder = torch.compile(encoder, dynamic=False, options={"freezing": True})
        try:
            self(torch.zeros(1, config.num_frames, self.num_channels, config.image_size, config.image_size))
        except (torch._dynamo.exc.TorchDynamoException, ImportError, OSError) as error:
            raise ValueError(
                "The encoder could not be compiled, which takes a C++ compiler: install one (on Debian or Ubuntu, "
                "apt install g++ python3-dev), name it in the environment variable CXX, or use engine 'torch': "
                + " ".join(str(error).split())[:300]
            ) from error

    @classmethod
    def from_model(
        cls,
        model: EchoMENModel,
        precision: str = "fp32",
        *,
        processor: EchoMENVideoProcessor | None = None,
        batch_size: int = 4,
    ) -> CompiledEngine:
        """Compile the encoder of a model."""
        check_engine(cls.name, precision)
        check_device(precision, model.device)
        encoder = FastEncoder(model.encoder, DTYPES[precision], processor)
        return cls(encoder, precision, model.config, 1 if encoder.device.type == "cpu" else batch_size)

    @torch.inference_mode()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        clips = pixel_values[:, :, : self.num_channels].to(self.device)
        parts = []
        for part in clips.split(self.batch_size):
            missing = self.batch_size - len(part)
            filled = F.pad(part, (0, 0) * 4 + (0, missing))  # (b, T, C, H, W) -> (batch_size, T, C, H, W)
            with float32_precision(CONVOLUTIONS[self.precision]):
                parts.append(self.encoder(filled.contiguous())[: len(part)].float())
        return torch.cat(parts)
