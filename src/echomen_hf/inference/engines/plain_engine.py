"""Encoder of any architecture in PyTorch, as it is."""

from __future__ import annotations

import copy

import torch

from ...model.float32_precision_echomen import float32_precision
from ...model.modeling_echomen import EchoMENModel
from .engine import check_engine
from .torch_engine import CONVOLUTIONS, DTYPES, check_device


__all__ = ["PlainEngine"]


class PlainEngine:
    """Runs a copy of a model's encoder, of which nothing is folded or laid out anew."""

    name = "torch"

    def __init__(self, model: EchoMENModel, precision: str = "fp32") -> None:
        check_engine(self.name, precision)
        check_device(precision, model.device)
        self.precision = precision
        self.device = model.device
        self.encoder = copy.deepcopy(model.encoder).eval().requires_grad_(False).to(DTYPES[precision])

    @torch.inference_mode()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        with float32_precision(CONVOLUTIONS[self.precision]):
            return self.encoder(pixel_values.to(self.device)).float()
