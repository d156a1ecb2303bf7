"""The command `echomen adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import BatchSize, Coverage, DataDir, Device, Model, NumWorkers, Protocol, runs_on_cpu, takes_layout


if TYPE_CHECKING:
    from ..training.adaptation import Adaptation


# Spelled out, since the module that defines them imports torch; a test compares them.
Method = Literal["as_is", "linear", "isotonic", "experts", "finetune"]


@takes_layout
def main(
    data_dir: DataDir,
    model: Model,
    output: Annotated[Path, typer.Option("--output", help="New folder for the adapted model.")],
    split: Annotated[
        str,
        typer.Option("--split", help="Splits to adapt to. The default leaves the test split for evaluate."),
    ] = "train+validation",
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group_by",
            help="Column with the patient, all of whose videos are in one fold. Defaults to patient if there is one.",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method", help="Way to take even if it does not help. Defaults to the best of those that help."
        ),
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option(
            "--finetune",
            help="Recipe of a fine-tuning to try too, such as finetune. It trains once per fold. Defaults to none.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", help="Folds of the cross-validation.")] = 5,
    protocol: Protocol = "windows",
    coverage: Coverage = 0.9,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 1,
    device: Device = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the folds, the intervals and fine-tuning.")] = 42,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Adapt a model to the videos of one site.

    \b
    echomen adapt --model runs/paper --data_dir hospital --output runs/hospital

    At least 30 videos with a known ejection fraction are needed. The ways to adapt are: linear and isotonic correct
    the ejection fraction by a line or a rising curve; experts moves the experts; finetune trains the whole network.
    Each is fitted to some folds of the videos and measured on the others. Of the ways that make errors smaller with
    95 % confidence, the one with the smallest balanced error is taken; if there is none, the model is as before. Its
    prediction intervals are calibrated too and, with 100 videos or more, predict takes videos like these for usual
    ones. adaptation.json holds the numbers.
    """
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; name a new folder as --output.")
    if method == "finetune" and finetune is None:
        raise ValueError("--method finetune needs a recipe: give --finetune finetune, the one of the package.")
    from transformers.utils import logging

    from ..data import load_videos
    from ..inference import load_checkpoint
    from ..runs.files import folder_or_id, weights_checksum, write_json
    from ..runs.run_folder import RUN_FILE, describe_initial_weights
    from ..runs.training_list import write_training_list
    from ..training import DataArguments, EchoMENTrainingArguments
    from ..training.adaptation import adapt_model
    from ..training.recipes import parse_recipe

    logging.disable_progress_bar()
    flags = {
        "output_dir": output,
        "per_device_eval_batch_size": batch_size,
        "dataloader_num_workers": num_workers,
        "use_cpu": runs_on_cpu(device),
        "seed": seed,
    }
    words = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    data_args, args = parse_recipe(
        (DataArguments, EchoMENTrainingArguments), [*([finetune] if finetune is not None else []), *words]
    )
    loaded, processor = load_checkpoint(model)
    videos = load_videos(data_dir, split=split, **layout_options)
    column = group_by or "patient"
    if group_by is not None and group_by not in videos.column_names:
        raise ValueError(f"The videos have no column {group_by!r}; there is {', '.join(videos.column_names)}.")
    adapted, adaptation = adapt_model(
        loaded,
        processor,
        list(videos),
        args,
        # A video whose patient is not known counts as one of its own.
        patients=[patient or name for patient, name in zip(videos[column], videos["file_name"])]
        if column in videos.column_names
        else None,
        method=method,
        finetune=finetune is not None,
        crop_padding=data_args.crop_padding,
        protocol=protocol,
        num_folds=folds,
        coverage=coverage,
    )
    adapted.save_pretrained(output)
    processor.save_pretrained(output)
    weights = {f"run.{name}": value for name, value in describe_initial_weights(model).items()}
    write_json(output / RUN_FILE, {**weights, "run.adaptation": adaptation.chosen})
    # The intervals are fitted to the videos even if nothing else is.
    write_training_list(output, [videos], initial_model=model)
    document = {
        "chosen": adaptation.chosen,
        "results": adaptation.results,
        "num_videos": adaptation.num_videos,
        "num_patients": adaptation.num_patients,
        "split": split,
        "protocol": protocol,
        "folds": folds,
        "seed": seed,
        "model": folder_or_id(model),
        "model_sha256": weights_checksum(model),
    }
    write_json(output / "adaptation.json", document)
    print(
        f"{adaptation.num_videos} videos of {adaptation.num_patients} patients, errors on held-out folds in EF points:"
    )
    print(f"\n{adaptation_table(adaptation)}\n")
    print(f"The model in {output} is adapted by: {adaptation.chosen}")


def adaptation_table(adaptation: Adaptation) -> str:
    """Format what the ways to adapt a model brought."""
    from ..evaluation.report import MISSING_VALUE, markdown_table

    rows = []
    for name, values in adaptation.results.items():
        mae, change = (
            f"{values[key]:{sign}.2f} ({values[f'{key}_ci_low']:{sign}.2f} to {values[f'{key}_ci_high']:{sign}.2f})"
            for key, sign in (("mae", ""), ("change", "+"))
        )
        balanced = (
            f"{values['balanced_mae']:.2f}" if values["balanced_mae"] == values["balanced_mae"] else MISSING_VALUE
        )
        rows.append([name, mae, MISSING_VALUE if name == "as_is" else change, balanced, f"{values['bias']:+.2f}"])
    return markdown_table(["Way", "MAE (95 % interval)", "Change", "Balanced MAE", "Bias"], rows)
