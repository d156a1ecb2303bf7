"""Measure a model on simulated hearts that it was not trained on: errors, intervals, and whether it reads motion.

    python scripts/examine_on_simulation.py --model runs/small --calibrate --output runs/small/examination.json

Half of the videos come from machines that the training never simulates. `--calibrate` first stores prediction
intervals in the model's configuration, from further simulated videos. `--card` writes the tables into a model card
between its marks `<!-- accuracy:begin -->`, `<!-- coverage:begin -->` and `<!-- motion:begin -->`, and their ends.
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.marked_section import replace_section
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.interval_calibration import store_calibration
from echomen_hf.evaluation.report import package_versions
from echomen_hf.evaluation.simulation_examination import (
    accuracy_section,
    calibrate_on_simulation,
    coverage_section,
    examine_on_simulation,
    motion_section,
)
from echomen_hf.inference import load_checkpoint
from echomen_hf.runs.files import weights_checksum, write_json


SECTIONS = ("accuracy", "motion", "coverage")
"""Names of the marks in a card."""


def main(arguments: list[str] | None = None) -> None:
    """Calibrate if asked to, measure, and write.

    Args:
        arguments: Command line without the name of the program.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="Folder of a trained model.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--card", type=Path, help="Markdown file whose marked sections get the tables.")
    parser.add_argument(
        "--calibrate", action="store_true", help="Calibrate prediction intervals and store them first."
    )
    parser.add_argument("--coverage", type=float, default=0.9, help="Share of videos that intervals are to hold.")
    parser.add_argument("--num_videos", type=int, default=3000, help="Videos per machine, and for the calibration.")
    parser.add_argument("--num_motion_videos", type=int, default=200, help="Videos that are changed on purpose.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the simulation.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that simulate.")
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    args = parser.parse_args(arguments)
    if not args.model.is_dir():
        parser.error(f"--model: there is no folder {args.model}")
    if not 0 < args.coverage < 1:
        parser.error(f"--coverage lies between 0 and 1, such as 0.9, not {args.coverage:g}")
    for name in ("num_videos", "num_motion_videos"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(args, name)}")
    # Before long predictions, and not after them.
    if args.card is not None:
        fill_card(args.card, dict.fromkeys(SECTIONS, ""))

    logging.disable_progress_bar()
    model, processor = load_checkpoint(args.model)
    model.to(args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    options = {"num_videos": args.num_videos, "seed": args.seed, "num_workers": args.num_workers}
    if args.calibrate:
        store_calibration(args.model, calibrate_on_simulation(model, processor, coverage=args.coverage, **options))
    examination = examine_on_simulation(model, processor, num_motion_videos=args.num_motion_videos, **options)
    document = {
        **examination,
        "model_sha256": weights_checksum(args.model),
        "synthetic_data": True,
        "versions": package_versions(),
    }
    write_json(args.output, document)
    sections = {
        "accuracy": accuracy_section(examination),
        "motion": motion_section(examination),
        "coverage": coverage_section(examination),
    }
    if args.card is not None:
        args.card.write_text(fill_card(args.card, sections), encoding="utf-8")
    print("SIMULATED videos only.", *sections.values(), f"Written to {args.output}", sep="\n\n")


def fill_card(path: Path, sections: dict[str, str]) -> str:
    """Put sections between their marks in a card.

    Args:
        path: Markdown file.
        sections: Content by name of the mark.

    Returns:
        The text of the card.

    Raises:
        ValueError: If a mark is missing.
    """
    text = path.read_text(encoding="utf-8")
    for name, content in sections.items():
        text = replace_section(text, name, content)
    return text


if __name__ == "__main__":
    run_script(main)
