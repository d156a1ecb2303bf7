"""Evaluate a trained model on a split: metrics.json, predictions.csv and the paper's figures.

    python scripts/evaluate.py --data_dir EchoNet-Dynamic --model runs/paper --output runs/paper/test

metrics.json holds every metric with its interval for the ensemble, and without intervals for a constant guess, the
stage-1 head, each expert, their mean and the oracle.
"""

import argparse
from pathlib import Path

import torch
from transformers import set_seed
from transformers.utils import logging

from echomen_hf import load_echonet_dynamic
from echomen_hf.cli.command_line import run_script
from echomen_hf.data import is_synthetic
from echomen_hf.evaluation import comparison_table, evaluate_split, save_report
from echomen_hf.evaluation.split_evaluation import interval_table
from echomen_hf.inference import load_checkpoint
from echomen_hf.inference.windows.shared_windows import windows_of_model
from echomen_hf.training.allocator import add_allocator_argument, keep_large_blocks


def main(arguments: list[str] | None = None) -> int:
    """Predict a split and write the report.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder in EchoNet-Dynamic's layout.")
    parser.add_argument("--model", required=True, help="Folder or Hub id of a trained model.")
    parser.add_argument("--output", required=True, type=Path, help="Folder for the report.")
    parser.add_argument("--split", default="test", help="Split to evaluate: train, validation or test.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, everyN, windows, center, or N.")
    parser.add_argument("--batch_size", type=int, default=8, help="Clips per forward pass.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that read videos.")
    parser.add_argument("--bootstrap_samples", type=int, default=1000, help="Resamples of the intervals; 0: none.")
    parser.add_argument("--confidence_level", type=float, default=0.95, help="Coverage of the intervals.")
    parser.add_argument(
        "--share_windows",
        action=argparse.BooleanOptionalAction,
        help="Do work that clips of all or everyN have in common once; on CPUs, that is the default.",
    )
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of the bootstrap.")
    add_allocator_argument(parser)
    args = parser.parse_args(arguments)

    keep_large_blocks(args.keep_large_blocks)
    logging.disable_progress_bar()
    set_seed(args.seed)
    # Before hours of predicting, and not after them.
    args.output.mkdir(parents=True, exist_ok=True)
    model, processor = load_checkpoint(args.model, exports=True)
    device = args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
    evaluation = evaluate_split(
        model.to(device),
        processor,
        load_echonet_dynamic(args.data_dir),
        split=args.split,
        protocol=args.protocol,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        bootstrap_samples=args.bootstrap_samples,
        confidence_level=args.confidence_level,
        seed=args.seed,
        windows=windows_of_model(model, args.protocol, args.batch_size, args.share_windows),
    )
    save_report(
        evaluation, args.output, model=args.model, data_dir=args.data_dir, synthetic=is_synthetic(args.data_dir)
    )
    print(comparison_table(evaluation.comparison))
    if evaluation.intervals is not None:
        print(f"\nPrediction intervals:\n\n{interval_table(evaluation.intervals)}\n")
    print(f"metrics.json, predictions.csv and figures are in {args.output}")
    return 0


if __name__ == "__main__":
    run_script(main)
