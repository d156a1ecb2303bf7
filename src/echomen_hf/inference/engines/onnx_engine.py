"""Encoder in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...model.modeling_echomen import EchoMENModel
from .encoder_graph import INPUT_NAME, OUTPUT_NAME, ClipShape, FoldedEncoder, clip_array, trace_encoder
from .optional_packages import import_extra


__all__ = ["ONNXEngine", "save_onnx"]


class ONNXEngine:
    """Runs an encoder with ONNX Runtime on the CPU, in single precision; `num_threads` defaults to all cores."""

    name = "onnx"
    precision = "fp32"

    def __init__(self, path: str | Path, clip_shape: ClipShape, *, num_threads: int | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"`num_threads` must be at least 1, got {num_threads}.")
        ort = import_extra("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        # A chain of layers has nothing to compute side by side.
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Threads that wait actively for the next batch would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base but this one.
            raise ValueError(f"{path} is no ONNX model: {' '.join(str(error).split())[:300]}") from error
        self.clip_shape = clip_shape

    @classmethod
    def from_model(cls, model: EchoMENModel, *, num_threads: int | None = None) -> ONNXEngine:
        """Convert the encoder of a model."""
        import_extra("onnxruntime", "onnx")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "encoder.onnx"
            save_onnx(trace_encoder(model), path)
            return cls(path, ClipShape.of(model.config), num_threads=num_threads)

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        clips = clip_array(pixel_values, self.clip_shape)
        (embeddings,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: clips})
        return torch.from_numpy(embeddings).to(pixel_values.device)


def save_onnx(encoder: FoldedEncoder, path: Path) -> list[Path]:
    """Write an encoder as one ONNX file."""
    for module in ("onnx", "onnxscript"):
        import_extra(module, "onnx")
    program = torch.onnx.export(
        encoder.program, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], dynamo=True, verbose=False
    )
    assert program is not None
    # Otherwise the file would name the folders of the machine that wrote it, in a stack trace for every layer.
    for node in program.model.graph:
        node.metadata_props.clear()
    program.save(path, external_data=False)
    return [path]
