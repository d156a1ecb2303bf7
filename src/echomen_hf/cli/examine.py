"""The command `echomen examine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Coverage, Device, ModelFolder, choose_device, keep_inputs


SECTIONS = ("accuracy", "experts", "motion", "coverage")
"""Names of the marks in a card."""


def main(
    model: ModelFolder,
    output: Annotated[Path, typer.Option("--output", help="JSON file to write.")],
    card: Annotated[
        Path | None, typer.Option("--card", help="Markdown file whose marked sections get the tables.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Calibrate prediction intervals and store them first.")
    ] = False,
    coverage: Coverage = 0.9,
    num_videos: Annotated[
        int, typer.Option("--num_videos", min=1, help="Videos per machine, and for the calibration.")
    ] = 3000,
    num_motion_videos: Annotated[
        int, typer.Option("--num_motion_videos", min=1, help="Videos that are changed on purpose.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the simulation.")] = 0,
    num_workers: Annotated[int, typer.Option("--num_workers", help="Processes that simulate.")] = 1,
    device: Device = None,
) -> None:
    """Measure a model on simulated hearts.

    \b
    echomen examine --model runs/small --calibrate --output runs/small/examination.json

    The hearts are ones that training did not show. Measured are errors, intervals, and whether the model reads motion.
    All are shown by machines as in training, by one that the training never simulates, and on screens.
    --calibrate first stores prediction intervals in the model's configuration, from further simulated videos, and
    which videos are usual, shown as the training that run.json records changed them. --card
    writes the tables into a model card between its marks <!-- accuracy:begin -->, <!-- experts:begin -->,
    <!-- coverage:begin --> and <!-- motion:begin -->, and their ends.
    """
    if not model.is_dir():
        raise ValueError(f"--model: there is no folder {model}")
    if not 0 < coverage < 1:
        raise ValueError(f"--coverage lies between 0 and 1, such as 0.9, not {coverage:g}")
    # Before long predictions, and not after them.
    keep_inputs(output, card)
    if card is not None:
        fill_card(card, dict.fromkeys(SECTIONS, ""))
    from transformers.utils import logging

    from ..evaluation.interval_calibration import store_calibration
    from ..evaluation.report import package_versions
    from ..evaluation.simulation_examination import (
        accuracy_section,
        calibrate_on_simulation,
        coverage_section,
        examine_on_simulation,
        experts_section,
        motion_section,
    )
    from ..inference import load_checkpoint
    from ..runs.files import weights_checksum, write_json

    logging.disable_progress_bar()
    loaded, processor = load_checkpoint(model)
    loaded.to(choose_device(device))
    options: dict[str, Any] = {"num_videos": num_videos, "seed": seed, "num_workers": num_workers}
    if calibrate:
        calibrate_on_simulation(
            loaded, processor, coverage=coverage, training_changes=training_changes(model), **options
        )
        store_calibration(model, loaded)
    examination = examine_on_simulation(loaded, processor, num_motion_videos=num_motion_videos, **options)
    document = {
        **examination,
        "model_sha256": weights_checksum(model),
        "synthetic_data": True,
        "versions": package_versions(),
    }
    write_json(output, document)
    sections = {
        "accuracy": accuracy_section(examination),
        "experts": experts_section(examination),
        "motion": motion_section(examination),
        "coverage": coverage_section(examination),
    }
    if card is not None:
        card.write_text(fill_card(card, sections), encoding="utf-8")
    print("SIMULATED videos only.", *sections.values(), f"Written to {output}", sep="\n\n")


def training_changes(model: Path) -> dict[str, float]:
    """Read from the record of a training on simulated videos how it changed their pictures; nothing without one."""
    from dataclasses import fields

    from ..runs.files import read_json
    from ..runs.run_folder import RUN_FILE, run_folder
    from ..simulation import SimulatedFrames

    record = run_folder(model) / RUN_FILE
    settings = read_json(record) if record.is_file() else {}
    changes = {field.name: settings.get(f"run.simulation.{field.name}") for field in fields(SimulatedFrames)}
    return {name: value for name, value in changes.items() if value is not None}


def fill_card(path: Path, sections: dict[str, str]) -> str:
    """Put sections between their marks in the text of a card; a missing mark is an error."""
    from ..runs.marked_section import replace_section

    text = path.read_text(encoding="utf-8")
    for name, content in sections.items():
        text = replace_section(text, name, content)
    return text
