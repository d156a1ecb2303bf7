"""Measure what best fills the clip of a video that is shorter than it, on simulated hearts.

Example:
    python -m benchmarks.short_videos --model src/echomen_hf/checkpoints/small --output outputs/short_videos
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from benchmarks.measurement import write_measurement
from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.report import markdown_table
from echomen_hf.evaluation.simulation_examination import HELD_OUT, IN_RANGE, examination_videos, simulated_frames
from echomen_hf.inference import load_checkpoint, predict_video
from echomen_hf.metrics import ef_regression_metrics
from echomen_hf.model.clip_sampling_echomen import ShortVideos
from echomen_hf.model.echo_video_echomen import EchoVideo


SEED_OFFSET = 13_000_003  # neither calibration nor examination sees these hearts
SECONDS = (0.4, 0.6, 0.8, 1.0, 1.2)
RULES: tuple[ShortVideos, ...] = get_args(ShortVideos)


def main() -> None:
    """Parse the arguments, simulate, predict, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--num_videos", type=int, default=150, help="hearts of each profile (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for short_videos.md and short_videos.json")
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, processor = load_checkpoint(args.model)
    videos = tqdm(
        simulated_videos(processor, args.num_videos, args.seed),
        total=2 * args.num_videos,
        unit="video",
    )
    errors = errors_of_rules(model, processor, videos, args.seed)
    settings = {"num_videos": args.num_videos, "seed": args.seed}
    document = {"settings": settings, "balanced_mae": errors}
    write_measurement(args.output / "short_videos", rules_table(errors), args.model, document)


def simulated_videos(
    processor: EchoMENVideoProcessor, num_videos: int, seed: int
) -> Iterator[tuple[EchoVideo, float]]:
    """Simulate hearts on machines as in training and on a new one, with their EF; a third in each category."""
    for profile in (IN_RANGE, HELD_OUT):
        source = simulated_frames(processor, profile)
        for row in examination_videos(num_videos, seed + SEED_OFFSET):
            yield EchoVideo(source.read(row), row["fps"], row["file_name"]), row["ejection_fraction"]


def errors_of_rules(
    model: EchoMENModel, processor: EchoMENVideoProcessor, videos: Iterable[tuple[EchoVideo, float]], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Balanced MAE in EF points for every rule and length in seconds; each video is cut at a random place."""
    generator = np.random.default_rng(seed)
    estimates: dict[tuple[str, float], list[float]] = defaultdict(list)
    labels = []
    for video, ejection_fraction in videos:
        labels.append(ejection_fraction)
        for seconds in SECONDS:
            num_frames = max(2, round(seconds * video.fps))
            start = int(generator.integers(video.num_frames - num_frames + 1))
            part = EchoVideo(video.frames[start : start + num_frames], video.fps, video.source)
            for rule in RULES:
                filling = copy.copy(processor)
                filling.short_videos = rule
                estimates[rule, seconds].append(predict_video(model, filling, part).ejection_fraction)
    return {
        rule: {
            f"{seconds:g}": ef_regression_metrics(np.array(estimates[rule, seconds]), np.array(labels))["balanced_mae"]
            for seconds in SECONDS
        }
        for rule in RULES
    }


def rules_table(errors: dict[str, dict[str, float]]) -> str:
    """Table of the errors, and of their mean over the lengths."""
    header = ["rule", *(f"{seconds:g} s" for seconds in SECONDS), "mean"]
    rows = [
        [
            rule.replace("_", " "),
            *(f"{error:.2f}" for error in of_rule.values()),
            f"{np.mean(list(of_rule.values())):.2f}",
        ]
        for rule, of_rule in errors.items()
    ]
    return markdown_table(header, rows)


if __name__ == "__main__":
    run_script(main)
