"""Report of the benchmark: benchmark.json, a table, and the page in the documentation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.speed.arithmetic import Accelerators, Recipe, encoder_flops, estimate_training, step_memory
from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.runs.files import write_text
from echomen_hf.runs.marked_section import replace_section


__all__ = [
    "RESULT_FIELDS",
    "arithmetic_text",
    "markdown_table",
    "save_report",
    "update_documentation",
]

RESULT_FIELDS = ("name", "ratio_median", "ratio_min", "ratio_max", "reference", "error")
"""Fields of every result. Numbers are `None` if it was skipped or failed."""

COLUMNS = ("result", "times faster", "aim", "error", "reference", "this package", "share of peak", "how")


def add_share_of_peak(results: list[dict[str, Any]], peaks: dict[str, float]) -> None:
    """Add the share of peak performance to results."""
    for result in results:
        if result.get("flops") and result.get("seconds") and peaks.get(result["precision"]):
            result["flops_per_second"] = result["flops"] / result["seconds"]
            result["share_of_peak"] = result["flops_per_second"] / peaks[result["precision"]]


def save_report(folder: Path, report: dict[str, Any]) -> None:
    """Write benchmark.json and benchmark.md."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("benchmark.json", to_json(report)), ("benchmark.md", markdown_table(report) + "\n")):
        write_text(folder / name, text)


def to_json(report: dict[str, Any]) -> str:
    """Report as JSON, with null for numbers that are not finite."""
    return json.dumps(without_infinities(report), indent=2, allow_nan=False) + "\n"


def without_infinities(value: Any) -> Any:
    """Replace numbers that are not finite by `None`, at any depth."""
    if isinstance(value, dict):
        return {key: without_infinities(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(report: dict[str, Any]) -> str:
    """Table of the results, with remarks below."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cells(result)) + " |" for result in report["results"]]
    remarks = [f"- `{result['name']}` {remark(result)}" for result in report["results"] if remark(result)]
    return "\n".join([*lines, *(["", *remarks] if remarks else [])])


def cells(result: dict[str, Any]) -> list[str]:
    """Cells of one result."""
    how = f"{result['side']}, against {result['reference']}; per {result['item']}"
    aim = f"{result['target']:g}" if result.get("target") else ""
    if result["ratio_median"] is None:
        return [f"`{result['name']}`", result["status"], aim, "", "", "", "", how]
    error = f"{result['error']:.2g} {result['error_unit']}" if result["error"] is not None else ""
    if result.get("bound") is not None:
        error += f" (bound {result['bound']:g})"
    ratio = "{ratio_median} ({ratio_min} to {ratio_max})".format(
        **{key: number(result[key]) for key in ("ratio_median", "ratio_min", "ratio_max")}
    )
    share = f"{100 * result['share_of_peak']:.0f} %" if result.get("share_of_peak") else ""
    times = [duration(result[key]) for key in ("reference_seconds", "seconds")]
    return [f"`{result['name']}`", ratio, aim, error, *times, share, how]


def remark(result: dict[str, Any]) -> str:
    """Remark on a result, if there is anything to say."""
    clauses = []
    if result["status"] != "measured":
        clauses.append(f"{result['status']}: {result['reason'].splitlines()[0]}")
    elif result.get("reason"):
        clauses.append(f"is {result['reason']}")
    machine = result.get("measured_with", {}).get("machine")
    if machine:
        clauses.append(
            f"was measured on another machine, {machine['processor']}, {machine['cores']} cores, "
            f"{', '.join(machine['instructions'])}"
        )
    if result.get("target") and result["ratio_median"] and result["ratio_median"] < result["target"]:
        clauses.append(f"does not reach {result['target']:g}")
    both = (result.get("reference_notes") or {}, result.get("notes") or {})
    if result["name"].startswith("train_step") and all("peak_memory_bytes" in notes for notes in both):
        before, now = (f"{notes['peak_memory_bytes'] / 2**30:.1f}" for notes in both)
        clauses.append(f"needs {now} GiB of memory, the reference {before} GiB")
    if "change_of_gradients" in result:
        share = f"{100 * result['change_of_gradients']:.2g} %"
        clauses.append(f"changes the first gradients of temporal filters by {share}")
    if "extrapolated_from_clips" in both[0]:
        clauses.append(f"has its reference extrapolated from {both[0]['extrapolated_from_clips']} clips per round")
    if "cache_hours_per_draw" in both[1]:
        clauses.append(
            f"needs embeddings first, {duration(both[1]['cache_seconds_per_clip'])} per clip or "
            f"{both[1]['cache_hours_per_draw']:.1f} hours per draw of 7,465 clips on this machine"
        )
    if "frames_per_video" in both[1]:
        clauses.append(f"reads videos of {both[1]['frames_per_video']:.0f} frames on average")
    if "codec_seconds_per_item" in both[1]:
        codec = both[1]["codec_seconds_per_item"]
        clauses.append(
            f"spends {duration(codec)} in the codec alone, so that without a cache the limit is "
            f"{result['reference_seconds'] / codec:.1f}"
        )
    if "cache_seconds_per_video" in both[1]:
        clauses.append(
            f"needs the cache first, {duration(both[1]['cache_seconds_per_video'])} and "
            f"{both[1]['cache_bytes_per_video'] / 1e6:.1f} MB per video"
        )
    if "flops_ratio_by_sharing" in both[1]:
        clauses.append(f"does 1/{both[1]['flops_ratio_by_sharing']:.2f} of the operations on these clips")
    for key, text in (
        ("mean_change", "changes predictions of the trained checkpoint by {:.2g} points on average"),
        ("largest_change", "by {:.2g} at most"),
        ("rise_of_mae", "changes its MAE by {:+.2g}"),
    ):
        if key in result and result["precision"] != "fp32":
            clauses.append(text.format(result[key]))
    return ", ".join(clauses)


def number(value: float) -> str:
    """Ratio with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Time in a suitable unit."""
    for unit, factor in (("h", 3600), ("s", 1), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def arithmetic_text(config: EchoMENConfig, decode_seconds: float | None) -> str:
    """Computed time of the paper's stage 1 on accelerators, as Markdown."""
    recipe, one = Recipe(), Accelerators()
    total_flops = estimate_training(config, one).total_flops
    forward, both = encoder_flops(config), encoder_flops(config, training=True)
    lines = [
        f"A clip of {config.num_frames} frames of {config.image_size} x {config.image_size} takes "
        f"{forward / 1e9:.1f} GFLOP forward and {both / 1e9:.1f} GFLOP forward and backward. Stage 1 is "
        f"{recipe.epochs} epochs of {recipe.train_videos:,} training videos in {recipe.num_views} views and of "
        f"{recipe.val_videos:,} validation clips, together {total_flops / 1e15:.0f} PFLOP. At "
        f"{100 * one.utilisation:.0f} % of an A100's {one.peak_flops / 1e12:.0f} TFLOP/s in TF32:",
        "",
        "| A100 | FLOP/s | stage 1 | videos read per second | cores that read them |",
        "|---|---|---|---|---|",
    ]
    for count in (1, 8):
        accelerators = Accelerators(count)
        estimate = estimate_training(config, accelerators)
        cores = f"{estimate.loader_cores(decode_seconds):.2f}" if decode_seconds is not None else "not measured"
        lines.append(
            f"| {count} | {accelerators.flops / 1e12:.0f} T | {duration(3600 * estimate.hours)} | "
            f"{estimate.videos_per_second:.0f} | {cores} |"
        )
    return "\n".join([*lines, "", *memory_lines(config, recipe.num_views)])


def memory_lines(config: EchoMENConfig, num_views: int) -> list[str]:
    """Computed memory of a step of stage 1, as the lines of a Markdown table."""
    lines = [
        f"Memory of a step of stage 1 with {num_views} views and SGD, in GiB, counted from what PyTorch keeps for the "
        "backward pass:",
        "",
        "| Videos at once | Precision | Activations | Kept | Recomputed | Weights, gradients, momentum | Sum |",
        "|---|---|---|---|---|---|---|",
    ]
    for videos, bf16, checkpointing in (
        (20, False, False),
        (20, True, False),
        (20, False, True),
        (20, True, True),
        (10, True, True),
        (3, False, False),
    ):
        memory = step_memory(config, videos * num_views, bf16=bf16, checkpointing=checkpointing)
        parts = (memory.activations, memory.recomputed, memory.weights, memory.total)
        lines.append(
            f"| {videos} | {'bf16' if bf16 else 'fp32'} | {'recomputed' if checkpointing else 'kept'} | "
            + " | ".join(f"{part / 2**30:.1f}" for part in parts)
            + " |"
        )
    return lines


def roofline_text(report: dict[str, Any]) -> str:
    """Machine, versions and peak performance, as Markdown."""
    machine, peaks = report["machine"], report["peaks"]
    flops = next((result["flops"] for result in report["results"] if result.get("flops")), None)
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GB, "
        f"{', '.join(machine['instructions'])}; "
        + ", ".join(f"{name} {number}" for name, number in report["versions"].items() if number)
        + ".",
        "",
        "| precision | peak measured | a clip cannot take less than |",
        "|---|---|---|",
    ]
    for precision, peak in peaks.items():
        least = duration(flops / peak) if flops else ""
        lines.append(f"| {precision} | {peak / 1e12:.2f} TFLOP/s | {least} |")
    return "\n".join(lines)


def with_results(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Replace some results of a report by those of a later run, and note its machine if it is another one."""
    results = list(whole["results"])
    origin = {key: part[key] for key in ("machine", "versions") if part[key] != whole[key]}
    place = len(results) - 1
    for result in part["results"]:
        measured = {**result, "measured_with": origin} if origin else result
        names = [other["name"] for other in results]
        if result["name"] in names:
            place = names.index(result["name"])
            results[place] = measured
        else:
            place += 1
            results.insert(place, measured)
    # `inference_best` stays that of the whole run.
    return {**whole, "results": results}


def update_documentation(page: Path, report: dict[str, Any], config: EchoMENConfig, *, is_whole: bool = True) -> None:
    """Write the results into docs/performance.md and docs/performance.json."""
    if not is_whole:
        report = with_results(json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), report)
    seconds = {result["name"]: result.get("seconds") for result in report["results"]}
    text = page.read_text(encoding="utf-8")
    text = replace_section(text, "machine", roofline_text(report))
    text = replace_section(text, "results", markdown_table(report))
    text = replace_section(text, "arithmetic", arithmetic_text(config, seconds.get("decode_clip")))
    page.write_text(text, encoding="utf-8")
    page.with_suffix(".json").write_text(to_json(report), encoding="utf-8")
