"""Folder of an exported model: configuration, video processor, heads, graph of the encoder, and `export.json`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import CONFIG_NAME, VIDEO_PROCESSOR_NAME

from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel
from ...model.video_processing_echomen import EchoMENVideoProcessor
from ...runs.files import file_checksum, write_json
from .encoder_graph import ClipShape
from .engine import Engine
from .onnx_engine import ONNXEngine
from .openvino_engine import OpenVINOEngine, PerformanceHint


__all__ = [
    "EXPORT_NAME",
    "GRAPH_NAMES",
    "ExportedEncoder",
    "check_target",
    "is_export",
    "load_export",
    "open_engine",
    "replace_export",
    "write_config",
    "write_heads",
    "write_record",
]

EXPORT_NAME = "export.json"
"""File that describes an export."""

GRAPH_NAMES = {"onnx": "encoder.onnx", "openvino": "encoder.xml"}
"""File of the encoder by format; OpenVINO's weights lie beside it."""

HEADS_NAME = "heads.safetensors"
OPENVINO_WEIGHTS_NAME = "encoder.bin"
EXPORT_FILES = {
    EXPORT_NAME,
    CONFIG_NAME,
    VIDEO_PROCESSOR_NAME,
    HEADS_NAME,
    OPENVINO_WEIGHTS_NAME,
    *GRAPH_NAMES.values(),
}
ENCODER_PREFIX = "encoder."


class ExportedEncoder(nn.Module):
    """Takes the place of the encoder in an exported model."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips."""
        return self.engine(pixel_values)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            "An exported model has no weights to save: copy its folder, or save the model it was made from."
        )


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is one that `export_model` wrote."""
    return (Path(folder) / EXPORT_NAME).is_file()


def load_export(
    folder: str | os.PathLike[str], *, num_threads: int | None = None, performance_hint: PerformanceHint = "latency"
) -> tuple[EchoMENModel, EchoMENVideoProcessor, Engine]:
    """Load an exported model.

    Args:
        folder: Folder that `export_model` wrote.
        num_threads: Threads of the engine; defaults to all cores.
        performance_hint: `latency` or `throughput`, see `OpenVINOEngine`; not used by ONNX Runtime.

    Returns:
        Model in evaluation mode, whose encoder is the engine; its video processor; and the engine.

    Raises:
        FileNotFoundError: If the folder holds no export.
        ValueError: If a file is missing or is not the one that was exported, or the package of the engine is missing.
    """
    folder = Path(folder)
    record = read_export_record(folder)
    for name, checksum in record["files"].items():
        if not (folder / name).is_file() or file_checksum(folder / name) != checksum:
            raise ValueError(
                f"{folder / name} is missing or is not the file that was exported, whose SHA-256 {EXPORT_NAME} names; "
                "copy the folder again, or export the model again."
            )
    config = EchoMENConfig.from_pretrained(folder)
    processor = EchoMENVideoProcessor.from_pretrained(folder)
    # Without memory for the encoder, which is not loaded.
    with torch.device("meta"):
        model = EchoMENModel(config)
    engine = open_engine(
        folder, record["format"], record["precision"], ClipShape.of(config), num_threads, performance_hint
    )
    model.encoder = cast(Any, ExportedEncoder(engine))
    try:
        model.load_state_dict(load_file(folder / HEADS_NAME), assign=True)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / HEADS_NAME} does not fit {CONFIG_NAME}: {reason[:300]}") from error
    return model.eval(), processor, engine


def open_engine(
    folder: Path,
    export_format: str,
    precision: str,
    clip_shape: ClipShape,
    num_threads: int | None = None,
    performance_hint: PerformanceHint = "latency",
) -> Engine:
    """Make the engine of an export."""
    path = folder / GRAPH_NAMES[export_format]
    if export_format == "onnx":
        return ONNXEngine(path, clip_shape, num_threads=num_threads)
    return OpenVINOEngine.from_file(
        path, clip_shape, cast(Any, precision), num_threads=num_threads, performance_hint=performance_hint
    )


def write_heads(model: EchoMENModel, processor: EchoMENVideoProcessor, folder: Path) -> None:
    """Write everything of a model but its encoder."""
    write_config(model.config, folder)
    write_json(folder / VIDEO_PROCESSOR_NAME, without_code(processor))
    state = {
        key: value.contiguous() for key, value in model.state_dict().items() if not key.startswith(ENCODER_PREFIX)
    }
    save_file(state, folder / HEADS_NAME, metadata={"format": "pt"})


def write_config(config: EchoMENConfig, folder: Path, widen_intervals_by: float = 0.0) -> None:
    """Write the configuration of an exported model.

    Prediction intervals are widened at both ends by the EF points that the export changes estimates by.
    """
    content = without_code(config)
    calibration = content.get("interval_calibration")
    if calibration:
        calibration["offsets"] = {
            category: [low - widen_intervals_by, high + widen_intervals_by]
            for category, (low, high) in calibration["offsets"].items()
        }
    write_json(folder / CONFIG_NAME, content)


def without_code(part: EchoMENConfig | EchoMENVideoProcessor) -> dict[str, Any]:
    """Return the content of a configuration file without `auto_map`, whose code would have to be trusted."""
    return {key: value for key, value in json.loads(part.to_json_string()).items() if key != "auto_map"}


def write_record(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write export.json, with the checksums of all other files."""
    files = {path.name: file_checksum(path) for path in sorted(folder.iterdir())}
    record = {**record, "files": files}
    write_json(folder / EXPORT_NAME, record)
    return record


def read_export_record(folder: Path) -> dict[str, Any]:
    """Read export.json."""
    path = folder / EXPORT_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no export: {EXPORT_NAME} is missing.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if (
        not isinstance(record, dict)
        or record.get("format") not in GRAPH_NAMES
        or record.get("precision") not in ("fp32", "bf16", "int8")
        or not isinstance(record.get("files"), dict)
    ):
        raise ValueError(
            f"{path} does not state `format`, `precision` and `files` of an export; export the model again."
        )
    needed = {CONFIG_NAME, VIDEO_PROCESSOR_NAME, HEADS_NAME, GRAPH_NAMES[record["format"]]}
    # A name with a folder in it would have other files read.
    strange = sorted(needed - record["files"].keys()) + sorted(record["files"].keys() - EXPORT_FILES)
    if strange:
        raise ValueError(f"{path} does not list the files of an export; missing or unknown: {', '.join(strange)}.")
    return record


def check_target(folder: Path) -> None:
    """Refuse to write an export over anything but an earlier one."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder for the export.")
    present = {path.name for path in folder.iterdir()}
    if present and (EXPORT_NAME not in present or present - EXPORT_FILES):
        raise FileExistsError(f"{folder} holds other files; name a new folder, or that of an earlier export.")


def replace_export(folder: Path, target: Path) -> None:
    """Move a complete export to its place; an earlier one there is removed."""
    check_target(target)
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)
