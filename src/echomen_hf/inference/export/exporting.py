"""Export of a model to another runtime, with its error measured and bounded."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from ...data import is_synthetic, load_videos
from ...data.layouts.tables import SPLIT_NAMES
from ...model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ...model.modeling_echomen import EchoMENModel
from ...runs.files import folder_or_id, weights_checksum
from ..checkpoint import load_checkpoint
from ..engines.encoder_graph import trace_encoder
from ..engines.export_folder import (
    GRAPH_NAMES,
    check_target,
    load_export,
    open_engine,
    replace_export,
    write_config,
    write_heads,
    write_record,
)
from ..engines.onnx_engine import save_onnx
from ..engines.openvino_engine import convert_to_openvino, save_openvino
from ..engines.optional_packages import import_extra
from ..video_prediction import predict_split
from .measured_error import (
    DEFAULT_MAX_CHANGE,
    DEFAULT_MAX_MAE_RISE,
    ClipsOfVideos,
    ErrorBound,
    ejection_fraction_heads,
    errors_on_noise,
    errors_on_videos,
    spread_over_ef,
)
from .quantisation import quantise


__all__ = ["CALIBRATION_CLIPS", "EXPORT_PRECISIONS", "ExportRefusedError", "export_model", "load_export"]

EXPORT_PRECISIONS = {"openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32",)}
"""Precisions by format of an export."""

CALIBRATION_CLIPS = 128
"""Clips that show the ranges of the activations, by default."""

CALIBRATION_SPLITS = {"validation": "train", "train": "validation"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
OWN_PACKAGES = ("echomen_hf", "torch", "transformers")


class ExportRefusedError(ValueError):
    """An export whose error exceeds its bound."""


class VideoSets(NamedTuple):
    """Videos that an export needs, rows as `load_videos` gives them."""

    measured: Any  # those that the error is measured on
    calibration: Any = None  # for int8, those that show the ranges of the activations, of the other split
    search: Any = None  # for int8, those on which the layers that tolerate it are found


def export_model(
    source: str | Path,
    output: str | Path,
    *,
    export_format: str = "openvino",
    precision: str = "fp32",
    data_dir: str | Path | None = None,
    layout_options: Mapping[str, Any] | None = None,
    split: str = "validation",
    protocol: str = DEFAULT_PROTOCOL,
    max_videos: int | None = None,
    max_mae_rise: float = DEFAULT_MAX_MAE_RISE,
    max_change: float | None = None,
    calibration_clips: int = CALIBRATION_CLIPS,
    batch_size: int = 4,
    seed: int = 42,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a model for another runtime, and measure the error that this causes.

    With `int8`, the central clips of videos of the other split (training, if the error is measured on validation)
    show the ranges of the activations. The videos of the split, in order of EF, go alternately to two halves: on the
    first, layers whose quantisation harms are found and left in bf16, until the EF changes by no more than
    `max_mae_rise` on average; on the second, the error is measured.

    Args:
        source: Folder or Hub id of a trained model.
        output: Folder to write; an earlier export there is replaced once the new one is complete.
        export_format: `openvino` or `onnx`.
        precision: `fp32`; or with OpenVINO `bf16` or `int8`.
        data_dir: Data set, see `load_videos`. By default, the change of the EF is measured on clips of noise, and the
            mean absolute error is not known; `int8` needs a data set.
        layout_options: Layout of the data set and its options, see `load_videos`.
        split: Split to measure on, validation or train; never test.
        protocol: Clips per video, see `protocol_starts`.
        max_videos: Use only so many videos of the split, spread over all EFs.
        max_mae_rise: Largest rise of the mean absolute error that is accepted, in EF points.
        max_change: Largest change of the EF of a video that is accepted, in EF points. Defaults to
            `DEFAULT_MAX_CHANGE`.
        calibration_clips: Clips that show the ranges of the activations, each of another video.
        batch_size: Clips per forward pass.
        seed: Seed of the noise.
        progress: Whether to show progress bars.

    Returns:
        Content of export.json.

    Raises:
        ExportRefusedError: If the error exceeds a bound; nothing is written then.
        FileExistsError: If the output holds anything but an earlier export.
        ValueError: If options do not go together, or a package is missing.
        OSError: If something is missing.
    """
    target = Path(output)
    protocol = parse_protocol(protocol)
    check_options(export_format, precision, data_dir, max_videos, calibration_clips)
    bound = ErrorBound(max_mae_rise, DEFAULT_MAX_CHANGE[precision] if max_change is None else max_change)
    check_target(target)
    packages = (*PACKAGES[export_format], *(("nncf",) if precision == "int8" else ()))
    for package in packages:
        import_extra(package, export_format)
    model: EchoMENModel
    model, processor = load_checkpoint(source)
    model.float()
    videos = None
    if data_dir is not None:
        splits = load_videos(data_dir, **(layout_options or {}))
        videos = choose_videos(splits, data_dir, split, max_videos, calibration_clips, precision)

    encoder = trace_encoder(model, for_bf16=precision == "bf16")
    quantisation: dict[str, Any] | None = None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary) / "export"
        folder.mkdir()
        graph_path = folder / GRAPH_NAMES[export_format]
        if export_format == "onnx":
            save_onnx(encoder, graph_path)
        else:
            graph = convert_to_openvino(encoder)
            if precision == "int8" and videos is not None:
                exact = predict_split(model, processor, videos.search, protocol, batch_size, progress=progress)
                quantised = quantise(
                    graph,
                    ClipsOfVideos(videos.calibration, processor, "center"),
                    ClipsOfVideos(videos.search, processor, protocol),
                    [prediction.ejection_fraction for prediction in exact],
                    ejection_fraction_heads(model),
                    max_mae_rise,
                )
                if not quantised.int8_layers:
                    raise ExportRefusedError(
                        f"The export is not written: on {len(videos.search)} videos, no layer could be quantised "
                        f"without changing the EF by more than {max_mae_rise:g} points on average. {remedy('int8')}"
                    )
                graph = quantised.graph
                quantisation = {
                    "bf16_layers": list(quantised.float_layers),
                    "calibration_clips": len(videos.calibration),
                    "calibration_split": CALIBRATION_SPLITS[SPLIT_NAMES[split.strip().lower()]],
                    "int8_layers": list(quantised.int8_layers),
                    "search_videos": len(videos.search),
                }
            save_openvino(graph, graph_path)
        write_heads(model, processor, folder)
        engine = open_engine(folder, export_format, precision, encoder.clip_shape)
        if videos is None:
            measured_on: dict[str, Any] = {"clips_of_noise": True, "seed": seed}
            errors = errors_on_noise(model, engine, seed)
            what = f"{errors.num_clips} clips of noise"
        else:
            measured_on = {
                "clips_of_noise": False,
                "data_dir": folder_or_id(str(data_dir)),
                "protocol": protocol,
                "split": SPLIT_NAMES[split.strip().lower()],
                "synthetic_data": is_synthetic(str(data_dir)),
            }
            errors = errors_on_videos(model, processor, engine, videos.measured, protocol, batch_size, progress)
            what = f"{errors.num_videos} videos of the split {measured_on['split']}"
        if violations := bound.violations(errors):
            raise ExportRefusedError(
                f"The export is not written: on {what}, {' and '.join(violations)}. {remedy(precision)}"
            )
        write_config(model.config, folder, widen_intervals_by=errors.max_change)
        record = {
            # Without reference EFs there is no such error to compare with its bound.
            "bound": {**asdict(bound), **({} if errors.mae_rise is not None else {"max_mae_rise": None})},
            "clip_shape": list(encoder.clip_shape),
            "error": asdict(errors),
            "format": export_format,
            "measured_on": measured_on,
            "precision": precision,
            "quantisation": quantisation,
            "source": {"model": folder_or_id(source), "weights_sha256": source_checksum(source)},
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in (*OWN_PACKAGES, *packages)},
            },
        }
        record = write_record(folder, record)
        replace_export(folder, target)
    return record


def check_options(
    export_format: str,
    precision: str,
    data_dir: str | Path | None,
    max_videos: int | None,
    calibration_clips: int,
) -> None:
    """Refuse options that do not go together."""
    if export_format not in EXPORT_PRECISIONS:
        raise ValueError(f"There is no format {export_format!r}; choose one of {', '.join(EXPORT_PRECISIONS)}.")
    if precision not in EXPORT_PRECISIONS[export_format]:
        raise ValueError(
            f"The format {export_format!r} has no precision {precision!r}, only "
            f"{', '.join(EXPORT_PRECISIONS[export_format])}."
        )
    if precision == "int8" and data_dir is None:
        raise ValueError(
            "int8 needs `data_dir`: clips show the ranges of the activations, and only videos with an ejection "
            "fraction show the error."
        )
    if max_videos is not None and max_videos < 2 or calibration_clips < 1:
        raise ValueError(
            f"Need at least 2 videos and 1 calibration clip, got max_videos={max_videos} and "
            f"calibration_clips={calibration_clips}."
        )


def choose_videos(
    splits: Any, data_dir: str | Path, split: str, max_videos: int | None, calibration_clips: int, precision: str
) -> VideoSets:
    """Choose the videos to measure on, and for int8 others to calibrate with and to find the layers on."""
    name = SPLIT_NAMES.get(split.strip().lower(), split)
    if name not in CALIBRATION_SPLITS:
        raise ValueError(
            f"An export is measured on the split validation or train, not {split!r}: decisions follow from the error, "
            "and the test split is for the final evaluation only."
        )
    needed = (name, CALIBRATION_SPLITS[name]) if precision == "int8" else (name,)
    for part in needed:
        if part not in splits or not len(splits[part]):
            raise ValueError(f"{data_dir} has no videos in the split {part!r}, which this export needs.")
    rows = splits[name].select(spread_over_ef(splits[name], max_videos))
    if precision != "int8":
        return VideoSets(rows)
    if len(rows) < 2:
        raise ValueError(f"int8 needs at least 2 videos in the split {name!r} of {data_dir}, got {len(rows)}.")
    others = splits[CALIBRATION_SPLITS[name]]
    return VideoSets(
        measured=rows.select(range(1, len(rows), 2)),
        calibration=others.select(spread_over_ef(others, calibration_clips)),
        search=rows.select(range(0, len(rows), 2)),
    )


def remedy(precision: str) -> str:
    """Suggest what to do about too large an error."""
    if precision == "int8":
        return (
            "Take more videos and calibration clips, export with precision bf16, or allow more with max_mae_rise and "
            "max_change."
        )
    if precision == "bf16":
        return "Export with precision fp32, or allow more with max_mae_rise and max_change."
    return (
        "Rounding alone changes less: check that the model is a trained one, and take other versions of torch and of "
        "the runtime, or allow more with max_change."
    )


def source_checksum(source: str | Path) -> str | None:
    """Compute the SHA-256 of the weights that an export was made from."""
    path = cached_file(str(source), SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
    return weights_checksum(Path(path).parent) if path is not None else None
