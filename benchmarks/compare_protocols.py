"""Compare the estimates of test protocols that take fewer clips of a video with those of one that takes all.

    python -m benchmarks.compare_protocols --data_dir runs/demo/data --model runs/demo/model

Changes are in EF points; the time per video is this machine's.
"""

import argparse

import torch
from transformers.utils import logging

from benchmarks.protocol_comparison import compare_protocols, protocol_table
from echomen_hf import load_echonet_dynamic
from echomen_hf.cli.command_line import run_script
from echomen_hf.data import is_synthetic
from echomen_hf.evaluation.split_evaluation import find_split
from echomen_hf.inference import load_checkpoint


PROTOCOLS = ("all", "every2", "every4", "every8", "every16", "every32", "windows", "center")


def main(arguments: list[str] | None = None) -> None:
    """Predict a split by every protocol and print the table.

    Args:
        arguments: Command line without the name of the program.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder in EchoNet-Dynamic's layout.")
    parser.add_argument("--model", required=True, help="Folder or Hub id of a trained model.")
    parser.add_argument("--split", default="test", help="Split to predict: train, validation or test.")
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS, help="Protocols; the first is the reference.")
    parser.add_argument("--batch_size", type=int, default=8, help="Clips per forward pass.")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that read videos.")
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    args = parser.parse_args(arguments)

    logging.disable_progress_bar()
    model, processor = load_checkpoint(args.model)
    model.to(args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    videos = load_echonet_dynamic(args.data_dir)
    rows = compare_protocols(
        model,
        processor,
        videos[find_split(videos, args.split)],
        args.protocols,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    if is_synthetic(args.data_dir):
        print("SYNTHETIC videos.\n")
    print(protocol_table(rows))


if __name__ == "__main__":
    run_script(main)
