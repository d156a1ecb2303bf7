"""Run all checks on one GPU: `python -m benchmarks.gpu_check --output runs/gpu_check.json`.

Every section runs in a process of its own, so that a crash, a full memory or a switch ends with it. The file is
written after each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.sections import SECTIONS
from echomen_hf.runs.files import write_json
from echomen_hf.simulation import write_synthetic_echonet


BUDGET = 480.0
"""Seconds for everything."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; the status is 1 if a section failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_check.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="Small networks: what the CPU can do in a test.")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--alone", choices=list(SECTIONS), help=argparse.SUPPRESS)
    parser.add_argument("--data_dir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.alone is not None:
        write_json(options.output, SECTIONS[options.alone](options.device, options.tiny, options.data_dir))
        return 0
    begin = time.monotonic()
    report: dict[str, Any] = {"device": options.device, "tiny": options.tiny, "sections": {}}
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        write_synthetic_echonet(data_dir, 30, seed=3, frames_range=(60, 100), num_workers=1, progress=False)
        for name in options.sections:
            left = BUDGET - (time.monotonic() - begin)
            report["sections"][name] = run_section(name, options, data_dir, Path(folder) / f"{name}.json", left)
            report["seconds"] = round(time.monotonic() - begin, 1)
            write_json(options.output, report)
            print(f"{name}: {report['sections'][name].get('error', 'done')[-200:]}", flush=True)
    return int(any("error" in section for section in report["sections"].values()))


def run_section(
    name: str, options: argparse.Namespace, data_dir: Path, output: Path, seconds_left: float
) -> dict[str, Any]:
    """Run one section in a process of its own, and read its result or why there is none."""
    begin = time.monotonic()
    command = [sys.executable]
    if name == "nccl":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    command += ["-m", "benchmarks.gpu_check", "--alone", name, "--device", options.device, "--output", str(output)]
    command += ["--data_dir", str(data_dir), *(["--tiny"] if options.tiny else [])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if name == "resume_deterministically":
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"  # which cuBLAS looks at when it is loaded
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=max(seconds_left, 1))
    except subprocess.TimeoutExpired:
        return {"error": f"not finished within the {BUDGET:.0f} seconds of the whole check"}
    seconds = round(time.monotonic() - begin, 1)
    if child.returncode != 0:
        return {"seconds": seconds, "error": child.stderr[-2000:]}
    return {"seconds": seconds, "result": json.loads(output.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    sys.exit(main())
