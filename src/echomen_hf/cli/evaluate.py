"""The command `echomen evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, DataDir, Device, KeepLargeBlocks, Model, NumWorkers, Protocol, choose_device


def main(
    data_dir: DataDir,
    model: Model,
    output: Annotated[Path, typer.Option("--output", help="Folder for the report.")],
    split: Annotated[str, typer.Option("--split", help="Split to evaluate: train, validation or test.")] = "test",
    protocol: Protocol = "windows",
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 1,
    bootstrap_samples: Annotated[
        int, typer.Option("--bootstrap_samples", help="Resamples of the intervals; 0 for no intervals.")
    ] = 1000,
    confidence_level: Annotated[
        float, typer.Option("--confidence_level", help="Coverage of the bootstrap intervals.")
    ] = 0.95,
    share_windows: Annotated[
        bool | None,
        typer.Option(
            "--share_windows/--no-share_windows",
            help="Do the work that overlapping clips of all or everyN have in common once. Defaults to yes on CPUs.",
        ),
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 42,
    keep_large_blocks: KeepLargeBlocks = False,
) -> None:
    """Evaluate a model on a split: metrics and figures.

    \b
    echomen evaluate --data_dir EchoNet-Dynamic --model runs/paper --output runs/paper/test

    The report is metrics.json, predictions.csv and the paper's figures. metrics.json holds every metric with its
    interval for the ensemble, and without intervals for a constant guess, the stage-1 head, each expert, their mean
    and the oracle.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from ..data import is_synthetic, load_echonet_dynamic
    from ..evaluation import comparison_table, evaluate_split, save_report
    from ..evaluation.split_evaluation import interval_table
    from ..inference import load_checkpoint
    from ..inference.windows.shared_windows import windows_of_model
    from ..training import allocator

    allocator.keep_large_blocks(keep_large_blocks)
    logging.disable_progress_bar()
    set_seed(seed)
    # Before hours of predicting, and not after them.
    output.mkdir(parents=True, exist_ok=True)
    loaded, processor = load_checkpoint(model, exports=True)
    evaluation = evaluate_split(
        loaded.to(choose_device(device)),
        processor,
        load_echonet_dynamic(data_dir),
        split=split,
        protocol=protocol,
        batch_size=batch_size,
        num_workers=num_workers,
        bootstrap_samples=bootstrap_samples,
        confidence_level=confidence_level,
        seed=seed,
        windows=windows_of_model(loaded, protocol, batch_size, share_windows),
    )
    save_report(evaluation, output, model=model, data_dir=data_dir, synthetic=is_synthetic(data_dir))
    print(comparison_table(evaluation.comparison))
    if evaluation.intervals is not None:
        print(f"\nPrediction intervals:\n\n{interval_table(evaluation.intervals)}\n")
    print(f"metrics.json, predictions.csv and figures are in {output}")
