"""Choice of the engine that runs the encoder of a model."""

from __future__ import annotations

from typing import Literal, cast

from torch import nn

from ...model.modeling_echomen import EchoMENModel
from ...model.video_encoder_echomen import VideoEncoder
from ...model.video_processing_echomen import EchoMENVideoProcessor
from .engine import Engine, check_engine, is_echomen, require_encoder


__all__ = ["make_engine"]


def make_engine(
    model: EchoMENModel,
    engine: str = "auto",
    precision: str = "fp32",
    *,
    processor: EchoMENVideoProcessor | None = None,
    batch_size: int = 4,
) -> Engine:
    """Make the engine that runs the encoder of a model.

    `auto` is `torch`, the fastest exact engine that needs no other package and no compiler: batch normalisation is
    folded into the convolutions, and these have their fastest form: on CPUs a known one, on accelerators that which is
    found by trying.

    Args:
        model: Model in evaluation mode, on the device to run on; it is left as it is. Later changes of its encoder's
            weights do not reach the engine.
        engine: `auto`, `torch`, `compile` (`torch.compile`; needs a C++ compiler and about a minute to start), `onnx`
            (ONNX Runtime) or `openvino`, which need their packages.
        precision: `fp32`, which is IEEE 754 on GPUs too; `tf32`, the faster arithmetic of NVIDIA GPUs; or `bf16`,
            fast where the processor has instructions for it (AMX, AVX-512 BF16, GPUs) and slow elsewhere.
        processor: Video processor that makes the clips. If it makes all channels of a clip equal, the engines
            `torch` and `compile` use the first channel only.
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
    require_encoder(model)
    if engine == "onnx":
        from .onnx_engine import ONNXEngine

        return ONNXEngine.from_model(model)
    if engine == "openvino":
        from .openvino_engine import OpenVINOEngine

        return OpenVINOEngine.from_model(model, cast(Literal["fp32", "bf16"], precision))
    if isinstance(other := cast(nn.Module, model.encoder), VideoEncoder):
        if engine == "compile":
            kind = other.model.config.model_type
            raise ValueError(f"Engine 'compile' runs R(2+1)D only, and this encoder is {kind}: choose torch or onnx.")
        from .plain_engine import PlainEngine

        return PlainEngine(model, precision)
    if engine == "compile":
        from .compiled_engine import CompiledEngine

        return CompiledEngine.from_model(model, precision, processor=processor, batch_size=batch_size)
    from .torch_engine import TorchEngine

    return TorchEngine.from_model(model, precision, processor=processor, batch_size=batch_size)
