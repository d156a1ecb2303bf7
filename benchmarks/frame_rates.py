"""Measure the error of a model at low frame rates, on simulated hearts: the same hearts at each rate.

Example:
    python -m benchmarks.frame_rates --model src/echomen_hf/checkpoints/small --output outputs/frame_rates
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from benchmarks.measurement import write_measurement
from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.report import markdown_table
from echomen_hf.evaluation.simulation_examination import (
    HELD_OUT,
    IN_RANGE,
    PROFILE_TITLES,
    examination_videos,
    simulated_frames,
)
from echomen_hf.inference import load_checkpoint, predict_split
from echomen_hf.metrics import ef_regression_metrics


SEED_OFFSET = 15_000_017  # neither calibration nor examination sees these hearts
RATES = (8.0, 10.0, 15.0, 25.0, 50.0)


def main() -> None:
    """Parse the arguments, simulate, predict, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--num_videos", type=int, default=300, help="hearts of each profile (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for frame_rates.md and frame_rates.json")
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, processor = load_checkpoint(args.model)
    errors = {
        name: errors_at_rates(model, processor, name, args.num_videos, args.seed) for name in (IN_RANGE, HELD_OUT)
    }
    settings = {"num_videos": args.num_videos, "seed": args.seed}
    document = {"settings": settings, "errors": errors}
    write_measurement(args.output / "frame_rates", rates_table(errors), args.model, document)


def errors_at_rates(
    model: EchoMENModel, processor: EchoMENVideoProcessor, profile: str, num_videos: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Balanced MAE and bias in EF points by frames per second; a third of the hearts in each category."""
    hearts = examination_videos(num_videos, seed + SEED_OFFSET)
    labels = hearts["ejection_fraction"]
    errors = {}
    for rate in RATES:
        videos = dataclasses.replace(hearts, fps=(rate, rate))
        predictions = predict_split(model, processor, videos, frames=simulated_frames(processor, profile))
        found = ef_regression_metrics([prediction.ejection_fraction for prediction in predictions], labels)
        errors[f"{rate:g}"] = {"balanced_mae": found["balanced_mae"], "bias": found["bias"]}
    return errors


def rates_table(errors: dict[str, dict[str, dict[str, float]]]) -> str:
    """Table of the errors, with the bias in brackets."""
    header = ["Balanced MAE (bias)", *(f"{rate:g} fps" for rate in RATES)]
    rows = [
        [PROFILE_TITLES[name], *(f"{one['balanced_mae']:.2f} ({one['bias']:+.1f})" for one in of_profile.values())]
        for name, of_profile in errors.items()
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    run_script(main)
