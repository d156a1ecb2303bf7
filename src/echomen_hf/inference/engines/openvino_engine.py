"""Encoder in OpenVINO, on Intel and other CPUs."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from ...model.modeling_echomen import EchoMENModel
from .encoder_graph import INPUT_NAME, OUTPUT_NAME, ClipShape, FoldedEncoder, clip_array, trace_encoder
from .optional_packages import import_extra
from .own_thread import in_own_thread


if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVINOEngine", "convert_to_openvino", "save_openvino"]

GraphPrecision = Literal["fp32", "bf16", "int8"]
PerformanceHint = Literal["latency", "throughput"]


class OpenVINOEngine:
    """Runs an encoder with OpenVINO on the CPU.

    `fp32` computes in single precision on every processor. `bf16` computes in bfloat16 where the processor has
    instructions for it, and else in single precision. `int8` computes with 8-bit integers in the layers that are
    quantised in the graph, and like `bf16` in the others. `num_threads` defaults to all cores. The performance hint
    `latency` gives all threads to one batch after another, which is best for few cores; `throughput` computes the
    clips of a batch side by side on groups of cores.
    """

    name = "openvino"

    def __init__(
        self,
        graph: openvino.Model,
        clip_shape: ClipShape,
        precision: GraphPrecision = "fp32",
        *,
        num_threads: int | None = None,
        performance_hint: PerformanceHint = "latency",
    ) -> None:
        if precision not in ("fp32", "bf16", "int8"):
            raise ValueError(f"OpenVINO computes in fp32, bf16 or int8, got {precision!r}.")
        if performance_hint not in ("latency", "throughput"):
            raise ValueError(f"`performance_hint` is latency or throughput, got {performance_hint!r}.")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"`num_threads` must be at least 1, got {num_threads}.")
        ov = import_extra("openvino", "openvino")
        if precision == "int8" and may_saturate():
            warnings.warn(
                "This processor has no VNNI instructions, so that sums of 8-bit products may saturate: errors may be "
                "larger than export.json states. Check the export here with `echomen evaluate`, or use one in fp32.",
                stacklevel=2,
            )
        self.precision = precision
        self.clip_shape = clip_shape
        settings: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "PERFORMANCE_HINT": performance_hint.upper(),
        }
        if num_threads is not None:
            settings["INFERENCE_NUM_THREADS"] = num_threads
        compiled = in_own_thread(lambda: ov.Core().compile_model(graph, "CPU", settings))()
        self._request = compiled.create_infer_request()
        self._queue = ov.AsyncInferQueue(compiled) if performance_hint == "throughput" else None
        self.embedding_size = compiled.output(0).partial_shape[1].get_length()

    @classmethod
    def from_model(
        cls,
        model: EchoMENModel,
        precision: Literal["fp32", "bf16"] = "fp32",
        **options: Any,
    ) -> OpenVINOEngine:
        """Convert the encoder of a model."""
        if precision not in ("fp32", "bf16"):
            raise ValueError(
                f"A model runs in fp32 or bf16, got {precision!r}; int8 needs an export, see `echomen export`."
            )
        return cls(
            convert_to_openvino(trace_encoder(model, for_bf16=precision == "bf16")),
            ClipShape.of(model.config),
            precision,
            **options,
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        clip_shape: ClipShape,
        precision: GraphPrecision,
        **options: Any,
    ) -> OpenVINOEngine:
        """Load a graph that `save_openvino` wrote."""
        ov = import_extra("openvino", "openvino")
        try:
            graph = ov.Core().read_model(path)
        except RuntimeError as error:
            raise ValueError(f"{path} is no OpenVINO model: {' '.join(str(error).split())[:300]}") from error
        return cls(graph, clip_shape, precision, **options)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        clips = clip_array(pixel_values, self.clip_shape)
        embeddings = np.empty((len(clips), self.embedding_size), dtype=np.float32)
        if self._queue is None:
            embeddings[:] = self._request.infer([clips], share_inputs=True)[0]
        else:

            def keep(request: openvino.InferRequest, position: int) -> None:
                embeddings[position] = request.get_output_tensor(0).data[0]

            self._queue.set_callback(keep)
            for position in range(len(clips)):
                self._queue.start_async([clips[position : position + 1]], position)
            self._queue.wait_all()
        return torch.from_numpy(embeddings).to(pixel_values.device)


def convert_to_openvino(encoder: FoldedEncoder) -> openvino.Model:
    """Convert an encoder to a graph whose convolutions have the names of its layers, such as `layer1.0.conv1.0.3`."""
    ov = import_extra("openvino", "openvino")
    graph = ov.convert_model(encoder.program)
    graph.reshape([-1, *encoder.clip_shape])
    graph.input(0).set_names({INPUT_NAME})
    graph.output(0).set_names({OUTPUT_NAME})
    weights = encoder.convolution_weights
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            values = cast("openvino.op.Constant", node.input_value(1).get_node()).data
            same = (name for name, w in weights.items() if w.shape == values.shape and np.array_equal(w, values))
            # Encoders other than R(2+1)D may have convolutions whose weights the conversion has changed.
            node.set_friendly_name(next(same, node.get_friendly_name()))
    return graph


def save_openvino(graph: openvino.Model, path: Path) -> list[Path]:
    """Write a graph (`.xml`) and its weights (`.bin`) in full precision."""
    ov = import_extra("openvino", "openvino")
    # OpenVINO numbers nodes through the life of a process; the same graph must give the same file.
    graph.set_friendly_name("encoder")
    for position, node in enumerate(graph.get_ordered_ops()):
        if node.get_type_name() != "Convolution":
            node.set_friendly_name(f"{node.get_type_name()}_{position}")
    ov.save_model(graph, os.fspath(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def may_saturate() -> bool:
    """Return whether the processor is an x86 one that adds pairs of 8-bit products in 16 bits."""
    # torch 2.9 cannot tell the instructions, so any x86 processor may.
    find = getattr(torch.cpu, "get_capabilities", lambda: {"architecture": platform.machine()})
    capabilities: Mapping[str, Any] = find()
    has_vnni = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
    return capabilities.get("architecture") == "x86_64" and not has_vnni
