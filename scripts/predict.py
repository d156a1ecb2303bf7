"""Estimate the ejection fraction of video or DICOM files, or of all such files in folders.

    python scripts/predict.py clip.avi study_folder --model runs/demo/model --output predictions.csv

Without `--model`, the small model that comes with the package reads them, which was trained on simulated hearts only.
A file that cannot be read is reported and skipped; the others are still written, and the exit status is then 1. What
speaks against an estimate, such as colour Doppler or an assumed frame rate, stands in the column `warning`. A model
that was calibrated gives the interval that holds the true ejection fraction in, say, 90 % of the patients of each
category.
Not a medical device: the numbers are for research.
"""

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from transformers.utils import logging

from echomen_hf import Predictor
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NAME, SMALL_MODEL_NOTICE, is_small_model
from echomen_hf.cli.command_line import run_script
from echomen_hf.inference import ENGINE_NAMES, PRECISIONS, find_videos
from echomen_hf.inference.video_prediction import VideoPrediction
from echomen_hf.labels import CATEGORY_TITLES
from echomen_hf.training.allocator import add_allocator_argument, keep_large_blocks


COLUMNS = [
    *("file", "EF_pred", "interval_low", "interval_high", "category", "expert_spread", "clip_sd", "clips"),
    *("model", "warning", "error"),
]


def main(arguments: list[str] | None = None) -> int:
    """Predict every file and write one row for each.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status: 1 if any file failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER", help="Videos, or folders searched for them.")
    parser.add_argument(
        "--model", help="Folder or Hub id of a trained model, or an export; the package's own without."
    )
    parser.add_argument("--output", type=Path, help="CSV file to write; the results are printed in any case.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, everyN, windows, center, or N.")
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    parser.add_argument("--engine", default="auto", choices=ENGINE_NAMES, help="What runs the encoder.")
    parser.add_argument("--precision", choices=PRECISIONS, help="Of the encoder; fp32 without, or the export's own.")
    parser.add_argument("--batch_size", type=int, default=4, help="Clips per forward pass, filled across videos.")
    parser.add_argument("--workers", type=int, default=1, help="Threads that read files while the model computes.")
    add_allocator_argument(parser)
    args = parser.parse_args(arguments)

    keep_large_blocks(args.keep_large_blocks)
    logging.disable_progress_bar()
    files = find_videos(args.paths)
    model = args.model or SMALL_MODEL_FOLDER
    is_small = is_small_model(model)
    name = SMALL_MODEL_NAME if is_small else str(model)
    predictor = Predictor(
        model,
        protocol=args.protocol,
        device=args.device,
        batch_size=args.batch_size,
        engine=args.engine,
        precision=args.precision,
        num_workers=args.workers,
    )
    rows = []
    with open_csv(args.output) as writer, heard_warnings() as heard:
        results = track(predictor.predict_files(files), "Predicting", len(files), console=Console(stderr=True))
        for path, result in results:
            rows.append(to_row(path, result, heard, name))
            heard.clear()
            writer(rows[-1])
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
    """Print warnings in one line, and keep their texts.

    Yields:
        List that grows with every warning.
    """
    heard: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        heard.append(str(message))
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield heard


def to_row(path: Path, result: VideoPrediction | Exception, warned: list[str], model: str) -> dict[str, str]:
    """Make a row of the output out of one result.

    Args:
        path: File.
        result: Its prediction, or the error.
        warned: Warnings about it.
        model: What the model is called.

    Returns:
        Text by column name.
    """
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
    """Open the output, if there is to be one.

    Args:
        path: CSV file, whose folder is made if missing; `None` writes nothing.

    Yields:
        Function that writes one row at once, so that an interruption loses none of those before it.
    """
    if path is None:
        yield lambda row: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8", buffering=1) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        yield writer.writerow


def print_table(rows: list[dict[str, str]], calibration: dict[str, Any] | None) -> None:
    """Print the predictions.

    Args:
        rows: Rows.
        calibration: Calibration of the model's intervals.
    """
    interval = f"{calibration['coverage']:.0%} interval" if calibration else "interval"
    table = Table(Column("file", overflow="fold"), "EF (%)", interval, "category", "expert spread", "clip sd", "clips")
    for row in rows:
        ends = f"{row['interval_low']} to {row['interval_high']}" if row["interval_low"] else "not calibrated"
        shown = [row["EF_pred"], ends, *(row[name] for name in ("category", "expert_spread", "clip_sd", "clips"))]
        table.add_row(Path(row["file"]).name, *(shown if not row["error"] else ["not readable", *[""] * 5]))
    Console().print(table)


if __name__ == "__main__":
    run_script(main)
