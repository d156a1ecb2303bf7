"""Run of the whole benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.alternation import measure
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.material import Material, prepare_material
from benchmarks.speed.report import add_share_of_peak
from benchmarks.speed.side_process import SideProcess
from benchmarks.speed.suite import BEST, Effort, best_of, make_suite, select
from echomen_hf.data.provenance import is_synthetic
from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.runs.installed_versions import installed_versions


__all__ = ["measure_peaks", "run_benchmark"]

PACKAGES = (
    "echomen-hf",
    "torch",
    "torchvision",
    "transformers",
    "av",
    "opencv-python-headless",
    "openvino",
    "nncf",
    "onnxruntime",
    "simplejpeg",
)
"""Packages whose versions affect the speed."""


def run_benchmark(
    folder: Path,
    effort: Effort,
    only: list[str] | None = None,
    model: Path | None = None,
    data_dir: Path | None = None,
    seed: int = 42,
    config: EchoMENConfig | None = None,
) -> dict[str, Any]:
    """Measure all results, or some of them, and return the report."""
    config = config if config is not None else EchoMENConfig()
    say("preparing weights, clips and videos")
    material = prepare_material(folder, model, data_dir, seed, effort.trained_clips, config)
    comparisons, left_out = select(make_suite(material, effort, config), only, effort.left_out)
    needs_peaks = any(row.flops for comparison in comparisons for row in comparison.rows)
    peaks = measure_peaks() if needs_peaks else {}
    results: list[dict[str, Any]] = []
    for comparison in comparisons:
        names = ", ".join(row.name for row in comparison.rows)
        say(names)
        measured = measure(comparison, lambda text: say(f"  {text}"))
        for result in measured:
            ratio = f"{result['ratio_median']:.3g} times" if result["ratio_median"] else result["status"]
            say(f"  {result['name']}: {ratio} {result.get('reason', '')}".rstrip())
        results += measured
    best = best_of(results) if only is None or BEST in only else None
    if best is not None:
        last_engine = max(index for index, result in enumerate(results) if result["name"].startswith("inference_"))
        results.insert(last_engine + 1, best)
    add_share_of_peak(results, peaks)
    return {
        "machine": describe_machine(),
        "versions": installed_versions(PACKAGES),
        "peaks": peaks,
        "accuracy_measured_on": accuracy_data(material),
        "left_out": left_out,
        "results": results,
    }


def measure_peaks() -> dict[str, float]:
    """Peak FLOP/s of this machine by precision, measured with products of matrices."""
    peaks = {}
    for precision in ("fp32", "bf16", "int8"):
        workload, options = "benchmarks.speed.machine:MatrixProduct", {"precision": precision}
        with SideProcess(f"peak in {precision}", workload, options) as process:
            process.prepare()
            process.receive("prepare")
            for _ in range(3):
                process.run()
            peaks[precision] = float(process.values()[0])
        say(f"peak in {precision}: {peaks[precision] / 1e12:.2f} TFLOP/s")
    return peaks


def accuracy_data(material: Material) -> str | None:
    """Checkpoint and videos that the accuracy was measured on, `None` without a checkpoint."""
    if material.trained is None:
        return None
    synthetic = "SYNTHETIC " if is_synthetic(material.data_dir) else ""
    return f"{len(material.labels)} {synthetic}test clips of {material.data_dir}, checkpoint {material.trained}"


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)
