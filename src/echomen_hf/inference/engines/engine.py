"""Engines: ways to run the encoder, from normalised clips to embeddings."""

from __future__ import annotations

from typing import Literal, Protocol, cast, runtime_checkable

import torch

from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel
from ...model.video_processing_echomen import EchoMENVideoProcessor


__all__ = ["ENGINE_NAMES", "ENGINE_PRECISIONS", "PRECISIONS", "Engine", "check_engine", "is_echomen", "make_engine"]

ENGINE_PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
"""Precisions that each engine can give a model as it is; others take an export."""

ENGINE_NAMES = ("auto", *ENGINE_PRECISIONS)
"""Names that `make_engine` takes."""

PRECISIONS = ("fp32", "bf16", "int8")
"""Precisions of weights and activations; embedding and heads are in single precision in any case."""


@runtime_checkable
class Engine(Protocol):
    """Something that runs the encoder of one model; the heads stay with the model, `model(embedding=engine(clips))`.

    An engine that looks at one channel of a clip only says so by an attribute `num_channels` of 1.
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


def make_engine(
    model: EchoMENModel,
    engine: str = "auto",
    precision: str = "fp32",
    *,
    processor: EchoMENVideoProcessor | None = None,
    batch_size: int = 4,
) -> Engine:
    """Make the engine that runs the encoder of a model.

    `auto` is the fastest engine that is exact and needs neither another package nor a compiler. That is `torch`: batch
    normalisation folded into the convolutions, and on CPUs the memory layout in which convolutions are fastest.

    Args:
        model: Model in evaluation mode, on the device to run on; it is left as it is. Later changes of its encoder's
            weights do not reach the engine.
        engine: `auto`, `torch`, `compile` (`torch.compile`; needs a C++ compiler and about a minute to start), `onnx`
            (ONNX Runtime) or `openvino`, which need their packages.
        precision: `fp32`, or `bf16`, fast where the processor has instructions for it (AMX, AVX-512 BF16, GPUs)
            and slow elsewhere.
        processor: Video processor that makes the clips. If it gives all channels of a clip the same numbers, and the
            engine can use that, the engine looks at the first channel only.
        batch_size: Clips that are usually passed at once.

    Returns:
        The engine.

    Raises:
        ValueError: If there is no such engine, or not in this precision, or for this architecture, or it cannot be
            made on this machine.
    """
    check_engine(engine, precision)
    if not is_echomen(model):
        raise ValueError(f"Engines run the encoder of EchoMEN; a {type(model).__name__} runs as it is, without one.")
    if engine == "onnx":
        from .onnx_engine import ONNXEngine

        return ONNXEngine.from_model(model)
    if engine == "openvino":
        from .openvino_engine import OpenVINOEngine

        return OpenVINOEngine.from_model(model, cast(Literal["fp32", "bf16"], precision))
    if engine == "compile":
        from .compiled_engine import CompiledEngine

        return CompiledEngine.from_model(model, precision, processor=processor, batch_size=batch_size)
    from .torch_engine import TorchEngine

    return TorchEngine.from_model(model, precision, processor=processor)


def check_engine(engine: str, precision: str) -> None:
    """Refuse a combination that does not exist.

    Args:
        engine: Name of an engine, or `auto`.
        precision: Name of a precision.

    Raises:
        ValueError: If there is no such engine or precision, or they do not go together; the message names what does.
    """
    if engine not in ENGINE_NAMES:
        raise ValueError(f"There is no engine {engine!r}; choose one of {', '.join(ENGINE_NAMES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if precision == "int8":
        raise ValueError(
            "Precision 'int8' needs an export whose error has been measured on validation clips: make one with "
            "scripts/export.py, and give its folder as the model."
        )
    if engine != "auto" and precision not in ENGINE_PRECISIONS[engine]:
        having = [name for name, precisions in ENGINE_PRECISIONS.items() if precision in precisions]
        raise ValueError(
            f"Engine {engine!r} has no precision {precision!r}, only {', '.join(ENGINE_PRECISIONS[engine])}; "
            f"{precision} is available in {', '.join(having)}."
        )


def is_echomen(model: torch.nn.Module) -> bool:
    """Tell whether a network has the encoder that engines run.

    Args:
        model: Model, of this package or by the code that travels with a checkpoint.

    Returns:
        True for EchoMEN, False for networks of another architecture.
    """
    return getattr(getattr(model, "config", None), "model_type", None) == EchoMENConfig.model_type
