"""Engines that run the encoder."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from ...model.configuration_echomen import EchoMENConfig
from ...model.video_encoder_echomen import NoEncoder


__all__ = [
    "ENGINE_NAMES",
    "ENGINE_PRECISIONS",
    "PRECISIONS",
    "Engine",
    "check_engine",
    "is_echomen",
    "require_encoder",
]

ENGINE_PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "tf32", "bf16"),
    "compile": ("fp32", "tf32", "bf16"),
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
"""Precisions of each engine; tf32 needs an NVIDIA GPU, and int8 an export."""

ENGINE_NAMES = ("auto", *ENGINE_PRECISIONS)
"""Names that `make_engine` takes."""

PRECISIONS = ("fp32", "tf32", "bf16", "int8")
"""Precisions of weights and activations; embeddings and heads are always in single precision, IEEE 754."""


@runtime_checkable
class Engine(Protocol):
    """Runs the encoder of one model; the heads stay with the model, `model(embedding=engine(clips))`.

    An engine that uses only the first channel of a clip has an attribute `num_channels` of 1.
    """

    @property
    def name(self) -> str:
        """What runs the encoder, one of `ENGINE_NAMES` but `auto`."""
        ...

    @property
    def precision(self) -> str:
        """Precision of weights and activations, one of `PRECISIONS`."""
        ...

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips.

        Args:
            pixel_values: Normalised clips, float32, shape (B, T, C, H, W), with any B.

        Returns:
            Embeddings, float32, shape (B, D).
        """
        ...


def check_engine(engine: str, precision: str) -> None:
    """Refuse an engine or precision that does not exist, or a combination that does not."""
    if engine not in ENGINE_NAMES:
        raise ValueError(f"There is no engine {engine!r}; choose one of {', '.join(ENGINE_NAMES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if precision == "int8":
        raise ValueError(
            "Precision 'int8' needs an export whose error has been measured on validation clips: make one with "
            "`echomen export`, and give its folder as the model."
        )
    if engine != "auto" and precision not in ENGINE_PRECISIONS[engine]:
        available = [name for name, precisions in ENGINE_PRECISIONS.items() if precision in precisions]
        raise ValueError(
            f"Engine {engine!r} has no precision {precision!r}, only {', '.join(ENGINE_PRECISIONS[engine])}; "
            f"{precision} is available in {', '.join(available)}."
        )


def is_echomen(model: torch.nn.Module) -> bool:
    """Return whether a network has the encoder that engines run."""
    return getattr(getattr(model, "config", None), "model_type", None) == EchoMENConfig.model_type


def require_encoder(model: torch.nn.Module) -> None:
    """Refuse a model that was trained on vectors alone."""
    if isinstance(model.encoder, NoEncoder):
        model.encoder(torch.empty(0))  # raises the error that says what to do
