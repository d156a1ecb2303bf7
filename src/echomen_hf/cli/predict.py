"""The command `echomen predict`."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import Device, OptionalModel, Protocol, choose_device


if TYPE_CHECKING:
    from ..inference import GroupPrediction


MOST_PRINTED = 40
"""Rows that are printed one by one; more are counted, if a table holds them."""

# Spelled out, since the modules that define them import torch; a test compares them.
Engine = Literal["auto", "torch", "compile", "onnx", "openvino"]
Precision = Literal["fp32", "tf32", "bf16", "int8"]
Combine = Literal["variance", "median"]


def main(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE_OR_FOLDER", help="Videos, or folders to search for videos; paths or URLs."),
    ] = None,
    model: OptionalModel = None,
    output: Annotated[
        str | None,
        typer.Option("--output", help="Table to write: Parquet if it ends in .parquet, else CSV; a path or URL."),
    ] = None,
    protocol: Protocol = "windows",
    device: Device = None,
    engine: Annotated[Engine, typer.Option("--engine", help="What runs the encoder.")] = "auto",
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Precision of the encoder. Defaults to fp32, or to the export's own."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch_size", help="Clips per forward pass. Defaults to 4 on CPUs and 16 on accelerators."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Threads that read files while the model computes. Defaults to 1 on CPUs, up to 8 on accelerators.",
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            help="CSV or Parquet file that lists the videos in a column path, file or file_name, instead of "
            "FILE_OR_FOLDER; its other columns are copied to the output.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the table that --output holds: its files are not read again.")
    ] = False,
    absolute_paths: Annotated[
        bool,
        typer.Option("--absolute_paths", help="Name files by absolute paths instead of paths from what was given."),
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group_by",
            help="Column of the manifest with the patient or study, or folder: also write one ejection fraction for "
            "each, as OUTPUT_by_COLUMN beside --output.",
        ),
    ] = None,
    combine: Annotated[
        Combine,
        typer.Option("--combine", help="How: mean with weights 1/variance, or median."),
    ] = "variance",
    force: Annotated[
        bool, typer.Option("--force", help="Estimate unusable videos too, which otherwise get no EF.")
    ] = False,
    outline: Annotated[
        bool,
        typer.Option(
            "--outline",
            help="Outline the left ventricle too: a second ejection fraction, and with --output one row per beat in "
            "OUTPUT_beats.csv.",
        ),
    ] = False,
    check_view: Annotated[
        bool,
        typer.Option(
            "--check_view/--no_check_view",
            help="Look for the left ventricle in a few frames, and call a video doubtful that does not show it as an "
            "apical four-chamber view does. Turn it off for models of other views.",
        ),
    ] = True,
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--overlay",
            help="Folder for a video with the outline (MP4) and a picture of the volume curve (PNG) of each file; "
            "needs --outline.",
        ),
    ] = None,
) -> int:
    """Estimate the ejection fraction of video or DICOM files.

    \b
    echomen predict clip.avi study_folder --model runs/demo/model --output predictions.csv

    Without --model, the files are read by the small model that comes with the package, which was trained on simulated
    hearts only. --model may also be a folder that echomen export wrote.

    A file that cannot be read is reported and skipped; the others are still written, and the exit status is then 1.
    The column quality says whether an estimate is good, doubtful or unusable, and reasons why; an unusable video gets
    no EF unless --force is given. Faults of the file, such as an assumed frame rate, are in the column warning. A
    calibrated model gives the interval that holds the true ejection fraction in, say, 90 % of the patients of each
    category, if they are like those it was calibrated on.

    --outline marks the left ventricle in every frame, finds the beats, and gives the ejection fraction of each. Where
    this reading contradicts the estimate, the quality is doubtful. The network is the package's own, trained on
    simulated hearts. --overlay shows the ultrasound fan alone, and nothing else of a screen.

    --group_by gives one ejection fraction for the videos of a patient or study, with their spread. It has no interval,
    since that of one video does not hold for several.

    Folders above those that were given, whose names may be those of patients, are named nowhere. Every row is written
    as soon as it is known, and --resume continues after an interruption. accelerate launch --multi_gpu
    --num_processes 2 -m echomen_hf.cli predict shares the files between processes, on CPUs too, and machines.

    Not a medical device: the numbers are for research.
    """
    if bool(paths) == bool(manifest):
        raise ValueError(
            "Give either files and folders or --manifest."
            if paths
            else "Missing argument 'FILE_OR_FOLDER'. Name videos, folders or a --manifest."
        )
    if overlay is not None and not outline:
        raise ValueError("--overlay draws the outline: add --outline.")
    if resume and output is None:
        raise ValueError("--resume continues a table: name it as --output.")
    from rich.console import Console
    from rich.progress import track
    from transformers.utils import logging

    from ..checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NOTICE, is_small_model
    from ..inference import Predictor, find_groups, list_files, predict_archive, read_manifest, write_groups
    from ..inference.groups import require_groups
    from ..runs.processes import is_main_process
    from ..training import allocator

    allocator.keep_large_blocks()
    logging.disable_progress_bar()
    if manifest is not None:
        files = read_manifest(manifest, absolute_paths=absolute_paths)
    else:
        files = list_files(paths or [], absolute_paths=absolute_paths)
    groups = find_groups(files, group_by) if group_by is not None else {}
    if group_by is not None and output is not None:
        require_groups(output, group_by)
    predictor = Predictor(
        model or SMALL_MODEL_FOLDER,
        protocol=protocol,
        device=device_of_process() if device is None else choose_device(device),
        batch_size=batch_size,
        engine=engine,
        precision=precision,
        num_workers=workers,
        force=force,
        outline=outline,
        check_view=check_view,
    )
    console = Console(stderr=True, quiet=not is_main_process())
    rows = predict_archive(
        predictor,
        files,
        output,
        model=model,
        resume=resume,
        overlay=overlay,
        progress=lambda rows, total: track(rows, "Predicting", total, console=console),
    )
    if not is_main_process():
        return 0
    if model is None or is_small_model(model):
        print(SMALL_MODEL_NOTICE)
    failed = [row for row in rows if row["error"]]
    if output is not None and len(rows) > MOST_PRINTED:
        print_summary(rows, output)
    else:
        print_table(rows, getattr(predictor.model.config, "interval_calibration", None))
        for kind in ("warning", "error"):
            for row in rows:
                if row[kind]:
                    print(f"{kind}: {row[kind]}", file=sys.stderr)
    if group_by is not None:
        print_groups(write_groups(rows, groups, group_by, output, combine), group_by)
    if failed:
        print(f"{len(failed)} of {len(rows)} files could not be read", file=sys.stderr)
    return 1 if failed else 0


def device_of_process() -> str | None:
    """Choose the accelerator of a process that shares a machine with others; `None` leaves the choice open."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or "LOCAL_RANK" not in os.environ:
        return None
    return f"{accelerator.type}:{int(os.environ['LOCAL_RANK']) % torch.accelerator.device_count()}"


def print_summary(rows: list[dict[str, str]], output: str) -> None:
    """Print how many files have what, and where the rows are."""
    from ..labels import CATEGORY_TITLES

    titles = [title for category, title in CATEGORY_TITLES.items() if category != "all"]
    counts = [(title, sum(row["category"] == title for row in rows)) for title in titles]
    counts += [(f"with {kind}s", sum(bool(row[kind]) for row in rows)) for kind in ("error", "warning")]
    counts += [(quality, sum(row["quality"] == quality for row in rows)) for quality in ("doubtful", "unusable")]
    print(f"{len(rows)} files: {', '.join(f'{count} {what}' for what, count in counts)}")
    print(f"All rows are in {PurePath(output).name}")


def print_table(rows: list[dict[str, str]], calibration: dict[str, Any] | None) -> None:
    """Print the predictions."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    interval = f"{calibration['coverage']:.0%} interval" if calibration else "interval"
    table = Table(Column("file", overflow="fold"), "EF (%)", interval, "category", "quality", "clip sd", "clips")
    outlined = ["EF_outline", "beats"] if rows and "EF_outline" in rows[0] else []
    for title in ("EF by outline (%)", "beats")[: len(outlined)]:
        table.add_column(title)
    for row in rows:
        ends = f"{row['interval_low']} to {row['interval_high']}" if row["interval_low"] else ""
        if row["EF_pred"] and not calibration:
            ends = "not calibrated"
        names = ["category", "quality", "clip_sd", "clips", *outlined]
        shown = [row["EF_pred"], ends, *(row[name] for name in names)]
        table.add_row(
            escape(row["file"]), *(shown if not row["error"] else ["not readable", *[""] * (1 + len(names))])
        )
    Console().print(table)
    for row in rows:
        if row["reasons"]:
            print(f"{row['file']}: {row['quality']}. {row['reasons']}")
        if row.get("outline_reasons"):
            print(f"{row['file']}: outline: {row['outline_reasons']}")


def print_groups(predictions: list[GroupPrediction], group_by: str) -> None:
    """Print the ejection fractions of patients or studies; of more than a screen shows, their number."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from ..labels import CATEGORY_TITLES

    if len(predictions) > MOST_PRINTED:
        print(f"{len(predictions)} of {group_by} have an ejection fraction")
        return
    table = Table(Column(escape(group_by), overflow="fold"), "EF (%)", "category", "sd of videos", "range", "videos")
    for each in predictions:
        spread = (f"{each.video_sd:.2f}", f"{each.lowest:.2f} to {each.highest:.2f}", str(each.num_videos))
        table.add_row(escape(each.group), f"{each.ejection_fraction:.2f}", CATEGORY_TITLES[each.category], *spread)
    Console().print(table)
