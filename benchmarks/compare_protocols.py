"""Compare test protocols that take few clips of a video with one that takes all.

    python -m benchmarks.compare_protocols --data_dir runs/demo/data --model runs/demo/model

Changes are in EF points. The time per video is that of this machine.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from echomen_hf import EchoMENModel, EchoMENVideoProcessor, load_videos
from echomen_hf.cli.command_line import run_script
from echomen_hf.data import is_synthetic
from echomen_hf.evaluation.report import markdown_table
from echomen_hf.evaluation.split_evaluation import find_split
from echomen_hf.inference import load_checkpoint
from echomen_hf.inference.engines.factory import make_engine
from echomen_hf.inference.video_prediction import predict_split
from echomen_hf.inference.windows.shared_windows import windows_of_engine
from echomen_hf.model.clip_sampling_echomen import parse_protocol


PROTOCOLS = ("all", "every2", "every4", "every8", "every16", "every32", "windows", "center")


def compare_protocols(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    protocols: Sequence[str],
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Predict the videos of a split by several protocols. The changes are relative to the first one."""
    protocols = [parse_protocol(protocol) for protocol in protocols]
    labels = np.asarray(videos["ejection_fraction"], np.float64)  # type: ignore[call-overload]
    rows: list[dict[str, Any]] = []
    reference = None
    engine = make_engine(model, "torch", batch_size=batch_size)
    # Warm-up, which would otherwise count for the first protocol.
    predict_split(model, processor, [videos[0]], protocols[-1], batch_size, progress=False, engine=engine)
    for protocol in protocols:
        windows = windows_of_engine(engine, protocol, batch_size, None)
        begin = time.perf_counter()
        found = predict_split(
            model, processor, videos, protocol, batch_size, num_workers, progress, engine=engine, windows=windows
        )
        seconds = (time.perf_counter() - begin) / len(labels)
        predicted = np.array([prediction.ejection_fraction for prediction in found])
        reference = predicted if reference is None else reference
        change = np.abs(predicted - reference)
        rows.append(
            {
                "protocol": protocol,
                "clips": float(np.mean([prediction.num_clips for prediction in found])),
                "mean_change": float(change.mean()),
                "largest_change": float(change.max()),
                "mae": float(np.abs(predicted - labels).mean()),
                "seconds": seconds,
            }
        )
    return rows


def protocol_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown table of `compare_protocols`."""
    first = rows[0]["protocol"]
    header = ["Protocol", "Clips per video", f"Mean change against `{first}`", "Largest", "MAE", "Seconds per video"]
    cells = []
    for number, row in enumerate(rows):
        changes = [f"{row['mean_change']:.2f}", f"{row['largest_change']:.2f}"] if number else ["", ""]
        cells.append(
            [f"`{row['protocol']}`", f"{row['clips']:.1f}", *changes, f"{row['mae']:.2f}", f"{row['seconds']:.3f}"]
        )
    return markdown_table(header, cells)


def main(arguments: list[str] | None = None) -> None:
    """Predict a split by every protocol and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="Folder of the data set, or a table of videos.")
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
    videos = load_videos(args.data_dir)
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
