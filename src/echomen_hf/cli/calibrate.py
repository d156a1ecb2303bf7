"""The command `echomen calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    BatchSize,
    Coverage,
    DataDir,
    Device,
    ModelFolder,
    NumWorkers,
    Protocol,
    choose_device,
    takes_layout,
)


@takes_layout
def main(
    data_dir: DataDir,
    model: ModelFolder,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the calibrated model. Defaults to the given folder.")
    ] = None,
    protocol: Protocol = "windows",
    coverage: Coverage = 0.9,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 1,
    device: Device = None,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Calibrate a model's prediction intervals.

    \b
    echomen calibrate --data_dir EchoNet-Dynamic --model runs/paper

    The intervals are calibrated on the validation split and stored in the model's configuration. Training does this at
    its end; the command is for a model that comes from elsewhere, another protocol or coverage.
    """
    if output is None and not model.is_dir():
        raise ValueError("--output is needed for a model that is not a folder here")
    if not 0 < coverage < 1:
        raise ValueError(f"--coverage lies between 0 and 1, such as 0.9, not {coverage:g}")
    from transformers.utils import logging

    from ..data import load_videos
    from ..evaluation.interval_calibration import calibrate_model, store_calibration
    from ..inference import load_checkpoint
    from ..labels import CATEGORY_TITLES

    logging.disable_progress_bar()
    loaded, processor = load_checkpoint(model)
    videos = load_videos(data_dir, **layout_options)
    if "validation" not in videos:
        raise ValueError(
            f"{data_dir} has no validation videos; intervals are calibrated on those that training did not fit."
        )
    calibration = calibrate_model(
        loaded.to(choose_device(device)),
        processor,
        videos["validation"],
        protocol=protocol,
        coverage=coverage,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    if output is None:
        store_calibration(model, loaded)
    else:
        loaded.save_pretrained(output)
        processor.save_pretrained(output)
    for category, (low, high) in calibration["offsets"].items():
        count = calibration["num_videos"][category]
        print(f"{CATEGORY_TITLES[category]}: {count} videos, EF between prediction {low:+.1f} and {high:+.1f}")
    print(f"Intervals with {coverage:.0%} coverage are in {output or model}/config.json")
