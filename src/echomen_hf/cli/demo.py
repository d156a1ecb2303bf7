"""The command `echomen demo`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


SUMMARY_FILE = "summary.json"
# Batch statistics in channels-last layout, half of the step of a network this small, are slower in two threads than in
# one.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RELOAD = """\
from transformers import AutoModel, AutoVideoProcessor
model = AutoModel.from_pretrained({model!r}, trust_remote_code=True).eval()
processor = AutoVideoProcessor.from_pretrained({model!r}, trust_remote_code=True)
ejection_fraction = model(**processor({video!r}, return_tensors="pt")).ejection_fraction
print(f"AutoModel, without importing echomen_hf: central clip of {name}: {{ejection_fraction.item():.1f}} %")
"""


def main(
    output: Annotated[Path, typer.Option("--output", help="Folder for everything.")] = Path("runs/demo"),
    num_videos: Annotated[int, typer.Option("--num_videos", help="Videos to simulate.")] = 1000,
    label_noise: Annotated[float, typer.Option("--label_noise", help="Readers' error, sd in EF points.")] = 3.0,
    recipe: Annotated[str, typer.Option("--recipe", help="Training recipe, a file or a name.")] = "demo",
    seed: Annotated[int, typer.Option("--seed", help="Seed of data, training and intervals.")] = 42,
) -> None:
    """Run everything once on synthetic data.

    The steps are: simulate, train both stages, evaluate, predict, reload. Every step is a command that can be typed
    alone, and is printed before it runs. A step that is done already is not done again, so an interrupted demo
    continues where it stopped.
    """
    from ..runs.files import write_json

    started = time.monotonic()
    summary = output / SUMMARY_FILE
    if summary.is_file():
        print(f"The demo is done already; remove {output} to run it again.", flush=True)
    else:
        data, model, report, frames = output / "data", output / "model", output / "test", output / "frames"
        size = ["--num_videos", num_videos, "--label_noise", label_noise]
        run_step(
            "Simulate a data set in EchoNet-Dynamic's layout", "simulate", "--output", data, *size, "--seed", seed
        )
        run_step(
            "Train stage 1 (encoder) and stage 2 (experts and aggregator)",
            *("train", recipe, "--data_dir", data, "--frame_cache", frames, "--output_dir", model),
            *("--seed", seed, "--use_cpu"),
        )
        run_step(
            "Evaluate on the test split",
            *("evaluate", "--data_dir", data, "--model", model, "--output", report, "--seed", seed),
        )
        video, dicom = example_files(data, report)
        run_step(
            "Predict one simulated AVI, and a real apical four-chamber DICOM (which the model was not trained for)",
            *("predict", video, dicom, "--model", model, "--output", output / "predictions.csv"),
        )
        print("\n=== Load the checkpoint in a process that does not import this package\n$ python -c ...", flush=True)
        run_python("-c", RELOAD.format(model=str(model.resolve()), video=str(video.resolve()), name=video.name))
        comparison = json.loads((report / "metrics.json").read_text(encoding="utf-8"))["comparison"]
        write_json(summary, {"test": comparison})
        print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes; everything is in {output}", flush=True)
    print_errors(summary)


def example_files(data: Path, report: Path) -> tuple[Path, Path]:
    """Find the first evaluated video, and pydicom's example of an apical four-chamber view."""
    import pandas as pd
    import pydicom.examples

    video = data / "Videos" / f"{pd.read_csv(report / 'predictions.csv')['FileName'][0]}.avi"
    return video, Path(pydicom.examples.get_path("ybr_color"))


def run_step(title: str, *command: object) -> None:
    """Print and run one command of `echomen`."""
    print(f"\n=== {title}\n$ {shlex.join(['echomen', *map(str, command)])}", flush=True)
    run_python("-m", "echomen_hf.cli", *command)


def run_python(*arguments: object) -> None:
    """Run Python; a failure ends the demo."""
    command = [sys.executable, *map(str, arguments)]
    status = subprocess.run(command, env={**ENVIRONMENT, **os.environ}, check=False).returncode
    if status != 0:
        sys.exit(f"The step failed with status {status}; fix what it says and run the demo again to continue.")


def print_errors(path: Path) -> None:
    """Print the results of the demo as a table."""
    from ..evaluation.split_evaluation import comparison_table

    results = json.loads(path.read_text(encoding="utf-8"))["test"]
    print("\nErrors on the test split, in EF points (SYNTHETIC data):\n")
    print(comparison_table(results))
