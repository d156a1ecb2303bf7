"""Run everything once on synthetic data: simulate, train both stages, evaluate, predict, reload.

    make demo

Every step is a command that can be typed alone, and is printed before it runs. A step that is done already is not
done again, so an interrupted demo continues where it stopped.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pydicom.examples

from echomen_hf.runs.files import write_json


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


def main(arguments: list[str] | None = None) -> int:
    """Run every step that is not done yet, and print the table.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="Folder for everything.")
    parser.add_argument("--num_videos", type=int, default=1000, help="Videos to simulate.")
    parser.add_argument("--label_noise", type=float, default=3.0, help="Readers' error, sd in EF points.")
    parser.add_argument("--recipe", type=Path, default=script("recipes/demo.yaml"), help="Training recipe.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of data, training and intervals.")
    args = parser.parse_args(arguments)

    started = time.monotonic()
    output: Path = args.output
    data, model, report, frames = output / "data", output / "model", output / "test", output / "frames"
    seed = ["--seed", args.seed]
    if (output / SUMMARY_FILE).is_file():
        print(f"The demo is done already; remove {output} to run it again.", flush=True)
    else:
        size = ["--num_videos", args.num_videos, "--label_noise", args.label_noise]
        step(
            "Simulate a data set in EchoNet-Dynamic's layout",
            *(script("make_synthetic_echonet.py"), "--output", data, *size, *seed),
        )
        step(
            "Train stage 1 (encoder) and stage 2 (experts and aggregator)",
            *("-m", "accelerate.commands.launch", "--config_file", script("accelerate_configs/one_cpu.yaml")),
            *(script("train.py"), args.recipe, "--data_dir", data, "--frame_cache", frames),
            *("--output_dir", model, *seed),
        )
        step(
            "Evaluate on the test split",
            *(script("evaluate.py"), "--data_dir", data, "--model", model, "--output", report, *seed),
        )
        video = data / "Videos" / f"{pd.read_csv(report / 'predictions.csv')['FileName'][0]}.avi"
        dicom = pydicom.examples.get_path("ybr_color")
        step(
            "Predict one simulated AVI, and a real apical four-chamber DICOM (which the model was not trained for)",
            *(script("predict.py"), video, dicom, "--model", model, "--output", output / "predictions.csv"),
        )
        reload = RELOAD.format(model=str(model.resolve()), video=str(video.resolve()), name=video.name)
        step("Load the checkpoint in a process that does not import this package", "-c", reload)
        comparison = json.loads((report / "metrics.json").read_text(encoding="utf-8"))["comparison"]
        write_summary(output / SUMMARY_FILE, {"test": comparison})
        print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes; everything is in {output}", flush=True)
    print_summary(output / SUMMARY_FILE)
    return 0


def script(name: str) -> Path:
    """Find a file beside this one, by the path that someone in the current folder would type."""
    return Path(os.path.relpath(Path(__file__).resolve().parent / name))


def step(title: str, *command: object) -> None:
    """Print and run one command; a failing one ends the demo with its status.

    Args:
        title: What the command is for.
        command: Arguments of the Python interpreter.
    """
    words = [str(word) for word in command]
    launched = words[:2] == ["-m", "accelerate.commands.launch"]
    shown = shlex.join(["accelerate", "launch", *words[2:]] if launched else ["python", *words])
    shown = "python -c ..." if words[0] == "-c" else shown
    print(f"\n=== {title}\n$ {shown}", flush=True)
    environment = {**ENVIRONMENT, **os.environ}
    status = subprocess.run([sys.executable, *words], env=environment, check=False).returncode
    if status != 0:
        sys.exit(f"The step failed with status {status}; mend what it says and run the demo again to continue.")


def write_summary(path: Path, summary: dict) -> None:
    """Write the results of the demo, completely or not at all.

    Args:
        path: JSON file.
        summary: Metrics by split and predictor.
    """
    write_json(path, summary)


def print_summary(path: Path) -> None:
    """Print the results of the demo as a table.

    Args:
        path: File of `write_summary`.
    """
    from echomen_hf.evaluation.split_evaluation import comparison_table

    results = json.loads(path.read_text(encoding="utf-8"))["test"]
    print("\nErrors on the test split, in EF points (SYNTHETIC data):\n")
    print(comparison_table(results))


if __name__ == "__main__":
    sys.exit(main())
