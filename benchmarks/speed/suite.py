"""Comparisons of the benchmark, by the names of their results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.speed.alternation import Comparison, Row, Side
from benchmarks.speed.arithmetic import encoder_flops
from benchmarks.speed.errors import (
    change_of_ejection_fraction,
    change_of_first_step,
    change_of_video_mean,
    largest_change_by_start,
)
from benchmarks.speed.material import Material
from echomen_hf.model.configuration_echomen import EchoMENConfig


__all__ = ["BEST", "FULL", "QUICK", "Effort", "best_of", "make_suite", "select"]

WORKLOADS = "benchmarks.speed.workloads"

EXACT_BOUND = 1e-3
"""Largest difference in EF points of results that count as equal."""

HALF_PRECISION_BOUND = 0.1
"""Largest mean change in bfloat16, and largest rise of the MAE in any precision, in EF points."""

BEST = "inference_best"

TORCHVISION = "torchvision r2plus1d_18, eager, fp32"


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 7  # of comparisons whose runs take a few seconds at most
    long_rounds: int = 5  # of the others
    train_batch: int = 4  # clips of a training step
    window_frames: int = 140  # of the video for all windows
    compared_clips: int = 8  # for the full-size network
    trained_clips: int = 64  # test videos for inference with the trained checkpoint
    trained_videos: int = 16  # test videos for windows with it
    left_out: tuple[str, ...] = ()  # results that take too long


FULL = Effort()

QUICK = Effort(
    rounds=2,
    long_rounds=2,
    train_batch=1,
    window_frames=71,
    compared_clips=2,
    trained_clips=32,
    trained_videos=2,
    left_out=(
        "inference_exact_batch4",
        "inference_bf16_batch4",
        "inference_exact_compile",
        "inference_exact_onnx",
        "inference_int8_openvino",
        "train_step_fp32",
        "windows_strided4",
        "windows_strided8",
        "processes",
    ),
)
"""Takes two minutes."""


def make_suite(material: Material, effort: Effort, config: EchoMENConfig) -> list[Comparison]:
    """List all comparisons."""
    return [
        *inference(material, effort, config),
        training_step(material, effort, config),
        decoding(material, effort),
        *stage_2(material, effort),
        windows(material, effort),
        processes(material, effort),
    ]


def inference(material: Material, effort: Effort, config: EchoMENConfig) -> list[Comparison]:
    """Compare engines, one clip and four clips at a time."""
    options = {**material.options(), "num_compared": effort.compared_clips}
    flops = float(encoder_flops(config))
    exact = change_of_ejection_fraction(effort.compared_clips, material.labels, largest=True)
    half = change_of_ejection_fraction(effort.compared_clips, material.labels, largest=False)

    def row(name: str, engine: str, precision: str, batch_size: int, **more: Any) -> Row:
        chosen = {"engine": engine, "precision": precision, "batch_size": batch_size, **options}
        side = Side(f"{engine} {precision}", f"{WORKLOADS}.inference:EngineInference", chosen, keep_large_blocks=True)
        limits = {"bound": EXACT_BOUND, "compare": exact} if precision == "fp32" else {}
        limits = {"bound": HALF_PRECISION_BOUND, "compare": half} if precision == "bf16" else limits
        return Row(name, side, flops=flops, precision=precision, **{**limits, **more})

    def reference(batch_size: int) -> Side:
        workload = f"{WORKLOADS}.inference:TorchvisionInference"
        return Side(TORCHVISION, workload, {"batch_size": batch_size, **options})

    one: tuple[Row, ...] = (
        row("inference_exact", "torch", "fp32", 1, target=1.7),
        row("inference_exact_compile", "compile", "fp32", 1),
        row("inference_exact_onnx", "onnx", "fp32", 1),
        row("inference_exact_openvino", "openvino", "fp32", 1),
        row("inference_bf16", "torch", "bf16", 1, target=3.4),
        row("inference_bf16_openvino", "openvino", "bf16", 1),
    )
    if material.trained is not None:
        quantised = Side(
            "openvino int8 and bf16",
            f"{WORKLOADS}.inference:QuantisedInference",
            {"data_dir": str(material.data_dir), **options},
            keep_large_blocks=True,
        )
        # Not a failure above the bound: `inference_best` is then another one.
        one = (*one, Row("inference_int8_openvino", quantised, compare=half, flops=flops, precision="int8"))
    four = (
        row("inference_exact_batch4", "torch", "fp32", 4, target=1.7),
        row("inference_bf16_batch4", "torch", "bf16", 4, target=3.4),
    )
    return [
        Comparison(reference(1), one, "clip", effort.rounds),
        Comparison(reference(4), four, "clip", effort.long_rounds),
    ]


def training_step(material: Material, effort: Effort, config: EchoMENConfig) -> Comparison:
    """Compare a step of training the encoder."""
    options = {"model": str(material.model), "clips": str(material.clips), "batch_size": effort.train_batch}
    flops = float(encoder_flops(config, training=True))

    def row(name: str, bf16: bool, **more: Any) -> Row:
        title = "bf16 autocast, channels last" if bf16 else "fp32, channels last"
        chosen = {"bf16": bf16, "channels_last": True, **options}
        side = Side(title, f"{WORKLOADS}.training_step:EchoMENStep", chosen, keep_large_blocks=True)
        unit = "EF points, root of the first loss"
        precision = "bf16" if bf16 else "fp32"
        return Row(name, side, error_unit=unit, flops=flops, precision=precision, compare=change_of_first_step, **more)

    workload = f"{WORKLOADS}.training_step:TorchvisionStep"
    return Comparison(
        Side(f"{TORCHVISION}, SGD", workload, options),
        # Predictions are some 10 EF points apart, computed in bfloat16 and with batch statistics.
        (row("train_step", True, target=3.0, bound=1.0), row("train_step_fp32", False, bound=0.05)),
        f"clip of a step with {effort.train_batch}",
        effort.long_rounds,
    )


def decoding(material: Material, effort: Effort) -> Comparison:
    """Compare the reading of a training item."""
    options = {"model": str(material.model), "data_dir": str(material.data_dir)}

    def row(name: str, title: str, workload: str, decoder: str = "pyav", **more: Any) -> Row:
        chosen = {**options, "decoder": decoder}
        side = Side(title, f"{WORKLOADS}.decoding:{workload}", chosen, keep_large_blocks=True)
        return Row(name, side, bound=2.0, error_unit="grey levels", **more)

    return Comparison(
        Side("OpenCV, whole video as float RGB", f"{WORKLOADS}.decoding:OpenCVItems", options),
        (
            row(
                "decode_clip",
                "from AVI by simplejpeg, as uint8 for the device",
                "PackedItems",
                "simplejpeg",
                target=15.0,
            ),
            row("decode_clip_pyav", "from AVI by PyAV, as uint8 for the device", "PackedItems"),
            row("decode_clip_normalised", "from AVI by PyAV, normalised", "FileItems"),
            row("decode_cached", "from the frame cache, as uint8 for the device", "PackedCachedItems"),
            row("decode_cached_normalised", "from the frame cache, normalised", "CachedItems"),
        ),
        "training item",
        effort.rounds,
    )


def stage_2(material: Material, effort: Effort) -> list[Comparison]:
    """Compare an epoch of stage 2, and the experts in closed form."""
    model, seeds = {"model": str(material.model)}, f"{WORKLOADS}.stage_2"
    clips = {**model, "data_dir": str(material.data_dir)}
    epoch = Row(
        "stage2_epoch",
        Side("EchoMENTrainer on cached embeddings", f"{seeds}:CachedEpoch", clips, keep_large_blocks=True),
        target=1000.0,
        bound=EXACT_BOUND,
    )
    experts = Row("stage2_experts", Side("in closed form", f"{seeds}:ExpertsInClosedForm", model), bound=EXACT_BOUND)
    through_encoder = Side("OpenCV, torchvision r2plus1d_18 fp32 and heads", f"{seeds}:EncoderEpoch", clips)
    return [
        Comparison(through_encoder, (epoch,), "epoch of 7,465 videos", effort.long_rounds),
        Comparison(
            Side("numpy.linalg.lstsq", f"{seeds}:ExpertsByNumPy", model), (experts,), "3 experts", effort.long_rounds
        ),
    ]


def windows(material: Material, effort: Effort) -> Comparison:
    """Compare predictions of a video from all of its clips, or from some."""
    options: dict[str, Any] = {
        "model": str(material.model),
        "data_dir": str(material.data_dir),
        "num_frames": effort.window_frames,
    }
    if material.trained is not None:
        options |= {"trained": str(material.trained), "trained_videos": effort.trained_videos}

    def side(title: str, workload: str, protocol: str) -> Side:
        return Side(
            title, f"{WORKLOADS}.windows:{workload}", {**options, "protocol": protocol}, keep_large_blocks=True
        )

    rows = [
        Row(
            "windows_exact",
            side("every start, shared work", "Sharing", "all"),
            target=2.0,
            bound=EXACT_BOUND,
            compare=largest_change_by_start,
        )
    ]
    for stride in (4, 8):
        strided = side(f"every {stride}th start, shared work", "Sharing", f"every{stride}")
        rows.append(Row(f"windows_strided{stride}", strided, compare=change_of_video_mean))
    reference = side("every start, clip by clip, same engine", "ClipByClip", "all")
    return Comparison(reference, tuple(rows), f"video of {effort.window_frames} frames", min(3, effort.long_rounds), 0)


def processes(material: Material, effort: Effort) -> Comparison:
    """Compare one process on all cores with two on half of them each."""
    one = {"engine": "torch", "precision": "fp32", "batch_size": 2, "num_compared": 1, **material.options()}
    child = {"workload": f"{WORKLOADS}.inference:EngineInference", "options": one}

    def side(count: int, title: str) -> Side:
        return Side(
            title,
            f"{WORKLOADS}.processes:ConcurrentInference",
            {"processes": count, "batches": 2 // count, **child},
            keep_large_blocks=True,
        )

    row = Row("processes", side(2, "2 processes, half of the cores each"), bound=EXACT_BOUND)
    return Comparison(side(1, "1 process, all cores"), (row,), "clip", effort.rounds)


def best_of(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Result `inference_best`: the fastest engine that keeps the accuracy, `None` if no engine was measured."""
    candidates = [
        result
        for result in results
        if result["name"].startswith("inference_")
        and not result["name"].endswith("_batch4")
        and result["ratio_median"] is not None
        and result["error"] is not None
    ]
    if not candidates:
        return None
    # Without a trained checkpoint, the mean change is used: the MAE cannot rise by more.
    rises = {result["name"]: max(0.0, result.get("rise_of_mae", result["error"])) for result in candidates}
    allowed = [result for result in candidates if rises[result["name"]] <= HALF_PRECISION_BOUND]
    if not allowed:
        return None
    best = max(allowed, key=lambda result: result["ratio_median"])
    listed = "; ".join(
        f"{result['side']} {result['ratio_median']:.2f} times with a rise of {rises[result['name']]:.3f}"
        for result in sorted(candidates, key=lambda result: -result["ratio_median"])
    )
    return best | {
        "name": BEST,
        "chosen": best["name"],
        "error": rises[best["name"]],
        "error_unit": "EF points, rise of MAE",
        "bound": HALF_PRECISION_BOUND,
        "target": 6.0,
        "status": "measured",
        "reason": f"the fastest whose MAE rises by no more than {HALF_PRECISION_BOUND:g}: {listed}",
    }


def select(
    comparisons: list[Comparison], only: list[str] | None, left_out: tuple[str, ...]
) -> tuple[list[Comparison], list[str]]:
    """Keep the requested rows, and return the names of those left out."""
    names = [row.name for comparison in comparisons for row in comparison.rows]
    unknown = sorted(set(only or ()) - {*names, BEST})
    if unknown:
        raise ValueError(f"There is no result {', '.join(unknown)}; there are {', '.join([*names, BEST])}.")
    wanted = set(only) if only else set(names) - set(left_out)
    if only and BEST in only:
        wanted |= {row.name for row in comparisons[0].rows} - set(left_out)
    kept = []
    for comparison in comparisons:
        rows = tuple(row for row in comparison.rows if row.name in wanted)
        if rows:
            kept.append(replace(comparison, rows=rows))
    return kept, [] if only else [name for name in names if name in left_out]
