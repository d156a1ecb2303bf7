"""The command `echomen evaluate-outline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, choose_device, keep_inputs, takes_layout


@takes_layout
def main(
    output: Annotated[Path, typer.Option("--output", help="JSON file to write.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of an outliner. Defaults to the one of the package.")
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data_dir", help="Folder of a data set with tracings. Defaults to simulated videos."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the data set: train, validation or test.")] = "test",
    num_videos: Annotated[int, typer.Option("--num_videos", min=1, help="Simulated videos per machine.")] = 200,
    num_others: Annotated[
        int, typer.Option("--num_others", min=1, help="Simulated recordings of every other kind.")
    ] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the simulation.")] = 0,
    card: Annotated[
        Path | None, typer.Option("--card", help="Markdown file whose section `outline` gets the table.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="First store the error of ejection fractions in the model's configuration."),
    ] = False,
    device: Device = None,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Measure how well the left ventricle is outlined.

    \b
    echomen evaluate-outline --output outline.json
    echomen evaluate-outline --output outline.json --data_dir EchoNet-Dynamic

    Dice coefficients are measured at end diastole, at end systole and over all frames with a known outline: exact ones
    of simulated hearts that training did not show, half of them on machines that training never simulates, or the
    tracings of a data set. --card writes the table into a model card, between <!-- outline:begin --> and its end.
    --calibrate measures, on further simulated hearts, the error that 90 % of the ejection fractions do not exceed.
    """
    if calibrate and model is None:
        raise ValueError("--calibrate changes the configuration of an outliner: give its folder as --model")
    if model is not None and not model.is_dir():
        raise ValueError(f"--model: there is no folder {model}")
    keep_inputs(output, card)
    from ..runs.marked_section import replace_section

    if card is not None:  # before long predictions, and not after them
        replace_section(card.read_text(encoding="utf-8"), "outline", "")
    from transformers.utils import logging

    from ..checkpoints import OUTLINE_FOLDER
    from ..data.tracings import read_tracings
    from ..evaluation.outline_evaluation import (
        calibrate_outliner,
        evaluate_outlines_on_simulation,
        evaluate_outlines_on_tracings,
        outline_section,
    )
    from ..evaluation.report import package_versions
    from ..outline import LeftVentricleOutliner
    from ..runs.files import weights_checksum, write_json

    logging.disable_progress_bar()
    folder = model or OUTLINE_FOLDER
    outliner = LeftVentricleOutliner.from_pretrained(folder).to(choose_device(device)).eval()
    if calibrate:
        calibrate_outliner(outliner, num_videos=num_videos, seed=seed)
        outliner.config.save_pretrained(folder)
    if data_dir is None:
        evaluation = evaluate_outlines_on_simulation(outliner, num_videos=num_videos, num_others=num_others, seed=seed)
    else:
        evaluation = evaluate_outlines_on_tracings(outliner, read_tracings(data_dir, split=split, **layout_options))
    document = {
        **evaluation,
        "model_sha256": weights_checksum(folder),
        "synthetic_data": data_dir is None,
        "versions": package_versions(),
    }
    write_json(output, document)
    section = outline_section(evaluation)
    if card is not None:
        card.write_text(replace_section(card.read_text(encoding="utf-8"), "outline", section), encoding="utf-8")
    print(*(["SIMULATED videos only."] if data_dir is None else []), section, f"Written to {output}", sep="\n\n")
