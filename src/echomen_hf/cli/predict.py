"""The command `echomen predict`."""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .options import BatchSize, Device, KeepLargeBlocks, OptionalModel, Protocol


if TYPE_CHECKING:
    from ..inference.video_prediction import VideoPrediction


COLUMNS = [
    *("file", "EF_pred", "interval_low", "interval_high", "category", "expert_spread", "clip_sd", "clips"),
    *("model", "warning", "error"),
]

# Spelled out, since the modules that define them import torch; a test compares them.
Engine = Literal["auto", "torch", "compile", "onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]


def main(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE_OR_FOLDER", help="Videos, or folders to search for videos.")
    ],
    model: OptionalModel = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="CSV file to write; the results are printed in any case.")
    ] = None,
    protocol: Protocol = "windows",
    device: Device = None,
    engine: Annotated[Engine, typer.Option("--engine", help="What runs the encoder.")] = "auto",
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Precision of the encoder. Defaults to fp32, or to the export's own."),
    ] = None,
    batch_size: BatchSize = 4,
    workers: Annotated[int, typer.Option("--workers", help="Threads that read files while the model computes.")] = 1,
    keep_large_blocks: KeepLargeBlocks = False,
) -> int:
    """Estimate the ejection fraction of video or DICOM files.

    \b
    echomen predict clip.avi study_folder --model runs/demo/model --output predictions.csv

    Without --model, the files are read by the small model that comes with the package, which was trained on simulated
    hearts only. --model may also be a folder that echomen export wrote.

    A file that cannot be read is reported and skipped; the others are still written, and the exit status is then 1.
    What speaks against an estimate, such as colour Doppler or an assumed frame rate, is in the column warning. A
    calibrated model gives the interval that holds the true ejection fraction in, say, 90 % of the patients of each
    category, if they are like those it was calibrated on.

    Not a medical device: the numbers are for research.
    """
    from rich.console import Console
    from rich.progress import track
    from transformers.utils import logging

    from ..checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NAME, SMALL_MODEL_NOTICE, is_small_model
    from ..inference import Predictor, find_videos
    from ..training import allocator

    allocator.keep_large_blocks(keep_large_blocks)
    logging.disable_progress_bar()
    files = find_videos(paths)
    is_small = model is None or is_small_model(model)
    name = SMALL_MODEL_NAME if is_small else str(model)
    predictor = Predictor(
        model or SMALL_MODEL_FOLDER,
        protocol=protocol,
        device=device,
        batch_size=batch_size,
        engine=engine,
        precision=precision,
        num_workers=workers,
    )
    rows = []
    with open_csv(output) as write_row, heard_warnings() as heard:
        results = track(predictor.predict_files(files), "Predicting", len(files), console=Console(stderr=True))
        for path, result in results:
            rows.append(to_row(path, result, heard, name))
            heard.clear()
            write_row(rows[-1])
    if is_small:
        print(SMALL_MODEL_NOTICE)
    print_table(rows, getattr(predictor.model.config, "interval_calibration", None))
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"error: {row['error']}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(rows)} files could not be read", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Print warnings in one line each, and collect their texts in a list."""
    heard: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        heard.append(str(message))
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield heard


def to_row(path: Path, result: VideoPrediction | Exception, warned: list[str], model: str) -> dict[str, str]:
    """Make a row of the output from one file's prediction or error."""
    from ..labels import CATEGORY_TITLES

    warning = " ".join(" ".join(warned).split())
    row = dict.fromkeys(COLUMNS, "") | {"file": str(path), "model": model, "warning": warning}
    if isinstance(result, Exception):
        return row | {"error": " ".join(str(result).split())}
    return row | {
        "EF_pred": f"{result.ejection_fraction:.2f}",
        "interval_low": "" if result.interval is None else f"{result.interval[0]:.2f}",
        "interval_high": "" if result.interval is None else f"{result.interval[1]:.2f}",
        "category": CATEGORY_TITLES[result.category],
        "expert_spread": f"{result.expert_spread:.2f}",
        "clip_sd": f"{result.clip_sd:.2f}",
        "clips": str(result.num_clips),
    }


@contextmanager
def open_csv(path: Path | None) -> Iterator[Callable[[dict[str, str]], None]]:
    """Open the output, if there is one; each row is written at once, so that an interruption loses none."""
    if path is None:
        yield lambda row: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8", buffering=1) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        yield writer.writerow


def print_table(rows: list[dict[str, str]], calibration: dict[str, Any] | None) -> None:
    """Print the predictions."""
    from rich.console import Console
    from rich.table import Column, Table

    interval = f"{calibration['coverage']:.0%} interval" if calibration else "interval"
    table = Table(Column("file", overflow="fold"), "EF (%)", interval, "category", "expert spread", "clip sd", "clips")
    for row in rows:
        ends = f"{row['interval_low']} to {row['interval_high']}" if row["interval_low"] else "not calibrated"
        shown = [row["EF_pred"], ends, *(row[name] for name in ("category", "expert_spread", "clip_sd", "clips"))]
        table.add_row(Path(row["file"]).name, *(shown if not row["error"] else ["not readable", *[""] * 5]))
    Console().print(table)
