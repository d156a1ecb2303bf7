"""Calibrate a model's prediction intervals on the validation split, and store them in its configuration.

    python scripts/calibrate.py --data_dir EchoNet-Dynamic --model runs/paper

`scripts/train.py` does this at its end; here for a model that comes from elsewhere, another protocol or coverage.
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from echomen_hf import load_echonet_dynamic
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.interval_calibration import calibrate_model, store_calibration
from echomen_hf.inference import load_checkpoint
from echomen_hf.labels import CATEGORY_TITLES


def main(arguments: list[str] | None = None) -> int:
    """Predict the split and write the calibration.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder in EchoNet-Dynamic's layout.")
    parser.add_argument("--model", required=True, type=Path, help="Folder of a trained model.")
    parser.add_argument("--output", type=Path, help="Folder for the calibrated model; the given one without.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, everyN, windows, center, or N.")
    parser.add_argument("--coverage", type=float, default=0.9, help="Share of videos that intervals are to hold.")
    parser.add_argument("--batch_size", type=int, default=8, help="Clips per forward pass.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that read videos.")
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    args = parser.parse_args(arguments)
    if args.output is None and not args.model.is_dir():
        parser.error("--output is needed for a model that is not a folder here")
    if not 0 < args.coverage < 1:
        parser.error(f"--coverage lies between 0 and 1, such as 0.9, not {args.coverage:g}")

    logging.disable_progress_bar()
    model, processor = load_checkpoint(args.model)
    videos = load_echonet_dynamic(args.data_dir)
    if "validation" not in videos:
        raise ValueError(
            f"{args.data_dir} has no validation videos; intervals are calibrated on those that training did not fit."
        )
    calibration = calibrate_model(
        model.to(args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu"),
        processor,
        videos["validation"],
        protocol=args.protocol,
        coverage=args.coverage,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    if args.output is None:
        store_calibration(args.model, calibration)
    else:
        model.save_pretrained(args.output)
        processor.save_pretrained(args.output)
    for category, (low, high) in calibration["offsets"].items():
        count = calibration["num_videos"][category]
        print(f"{CATEGORY_TITLES[category]}: {count} videos, EF between prediction {low:+.1f} and {high:+.1f}")
    print(f"Intervals with {args.coverage:.0%} coverage are in {args.output or args.model}/config.json")
    return 0


if __name__ == "__main__":
    run_script(main)
