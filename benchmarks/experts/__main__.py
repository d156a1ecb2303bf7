"""Experiments on what decides: do experts and aggregator help beyond refitting a head, on vectors of encoders?

    python -m benchmarks.experts runs/table --data_dir runs/table_data --output runs/experts

The encoders are those of stage 1 of the EchoMEN cells of a comparison, one per seed. Their vectors are written once,
and every setting is trained on them with the seed of the encoder. Finished vectors and settings are kept, so that the
same command continues an interrupted one. A table and its numbers are written per experiment, see `settings.py`. The
way to train the aggregator that is best on VAL is compared with the refitted head that is best on VAL, in
`decision.json`.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from benchmarks.experts.heads import Splits, predict_all, read_splits, train_heads, training_split
from benchmarks.experts.settings import EXPERIMENTS, Setting
from benchmarks.experts.tables import Cell, decision, experiment_rows, experiment_table
from echomen_hf import EchoMENModel
from echomen_hf.cli import invoke
from echomen_hf.cli.command_line import run_script
from echomen_hf.data.clip_vectors import read_clip_vectors
from echomen_hf.runs.files import replacing, write_json, write_text
from echomen_hf.runs.run_folder import is_finished


def embed_once(stage_1: Path, path: Path, seed: int, args: argparse.Namespace) -> None:
    """Write the vectors of an encoder unless they are there."""
    if path.is_file():
        return
    flags = ["--model", str(stage_1), "--data_dir", str(args.data_dir), "--output", str(path), "--seed", str(seed)]
    flags += ["--draws", str(args.draws), "--crop_padding", str(args.crop_padding), "--num_workers", "0"]
    if args.frame_cache is not None:
        flags += ["--frame_cache", str(args.frame_cache)]
    invoke(["embed", *flags])


def compute(stage_1: EchoMENModel, splits: Splits, setting: Setting, seed: int) -> dict[str, np.ndarray]:
    """Train a setting and predict; arrays by split and head."""
    splits = Splits(training_split(splits.train, setting, seed), splits.validation, splits.test)
    model = train_heads(stage_1, splits, setting, seed)
    predictions = predict_all(model, stage_1, splits, setting)
    labels = {"validation": splits.validation.labels, "test": splits.test.labels}
    arrays = {f"{split}/{head}": values for split, heads in predictions.items() for head, values in heads.items()}
    return arrays | {f"{split}/labels": values for split, values in labels.items()}


def read_cell(path: Path, seed: int) -> Cell:
    """Read a finished setting of one encoder."""
    predictions: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    with np.load(path) as arrays:
        for name in arrays.files:
            split, head = name.split("/", 1)
            predictions[split][head] = arrays[name]
    labels = {split: heads.pop("labels") for split, heads in predictions.items()}
    return Cell(seed, predictions, labels)


def write_tables(output: Path, names: Sequence[str]) -> None:
    """Write the tables of the experiments, as far as they are finished."""
    cells: dict[str, list[Cell]] = {}
    for path in sorted(output.glob("cells/*/seed_*.npz")):
        cells.setdefault(path.parent.name, []).append(read_cell(path, int(path.stem.removeprefix("seed_"))))
    for name in names:
        title, settings = EXPERIMENTS[name]
        rows = experiment_rows(settings, cells)
        if rows:
            write_json(output / f"{name}.json", rows)
            write_text(output / f"{name}.md", experiment_table(title, rows))
    ways = EXPERIMENTS["aggregators"][1]
    common = [setting for setting in ways if len(cells.get(setting.name, [])) == max(map(len, cells.values()))]
    if common:
        write_json(output / "decision.json", decision(common, cells))


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="Results folder of a comparison, with the runs of its cells.")
    parser.add_argument("--data_dir", type=Path, required=True, help="Data set of the comparison.")
    parser.add_argument("--frame_cache", type=Path, help="Folder of its decoded frames.")
    parser.add_argument("--output", type=Path, required=True, help="Folder for vectors, cells and tables.")
    parser.add_argument("--method", default="echomen", help="Method whose encoders are used.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="Seeds of the encoders.")
    parser.add_argument("--draws", type=int, default=2, help="Random clips of each training video.")
    parser.add_argument("--crop_padding", type=int, default=4, help="Largest shift of a crop, as in the recipe.")
    parser.add_argument("--experiments", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    args = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for seed in args.seeds:
        stage_1 = args.comparison / "cells" / args.method / f"seed_{seed}" / "run" / "stage1"
        if not is_finished(stage_1):
            raise FileNotFoundError(f"There is no finished stage 1 in {stage_1}: run that cell of the comparison.")
        path = args.output / "vectors" / f"{args.method}_{seed}.parquet"
        embed_once(stage_1, path, seed, args)
        model, splits = EchoMENModel.from_pretrained(stage_1).eval(), read_splits(read_clip_vectors(path))
        settings = {setting.name: setting for name in args.experiments for setting in EXPERIMENTS[name][1]}
        for setting in settings.values():
            cell = args.output / "cells" / setting.name / f"seed_{seed}.npz"
            if cell.is_file():
                continue
            started = time.perf_counter()
            arrays: Any = compute(model, splits, setting, seed)
            with replacing(cell) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **arrays)
            print(f"{setting.title}, seed {seed}: {time.perf_counter() - started:.1f} s", flush=True)
        write_tables(args.output, args.experiments)


if __name__ == "__main__":
    run_script(main)
