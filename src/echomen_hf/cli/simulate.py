"""The command `echomen simulate`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .options import Profile


def main(
    output: Annotated[str, typer.Option("--output", help="Folder of the data set.")],
    num_videos: Annotated[int, typer.Option("--num_videos", help="Number of videos.")] = 440,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    image_size: Annotated[int, typer.Option("--image_size", help="Height and width.")] = 112,
    min_frames: Annotated[int, typer.Option("--min_frames", help="Shortest video.")] = 28,
    max_frames: Annotated[int, typer.Option("--max_frames", help="Longest video.")] = 300,
    num_workers: Annotated[
        int | None, typer.Option("--num_workers", help="Processes. Defaults to one per usable processor.")
    ] = None,
    label_noise: Annotated[float, typer.Option("--label_noise", help="Readers' error, sd in points of EF.")] = 0.0,
    profile: Annotated[
        Profile,
        typer.Option(
            "--profile",
            help="Patients and machines: the demo's, wide ranges for training, or a vendor that is never trained on.",
        ),
    ] = "reference",
    couple_size: Annotated[float, typer.Option("--couple_size", help="How much larger weak hearts are.")] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a synthetic data set with other settings.")
    ] = False,
) -> None:
    """Write a data set of simulated echocardiograms.

    \b
    echomen simulate --output data/synthetic_echonet --num_videos 440 --seed 7

    The folder has EchoNet-Dynamic's layout.
    """
    from ..simulation import write_synthetic_echonet

    start = time.perf_counter()
    folder = write_synthetic_echonet(
        output,
        num_videos=num_videos,
        seed=seed,
        image_size=image_size,
        num_workers=num_workers,
        label_noise=label_noise,
        frames_range=(min_frames, max_frames),
        profile=profile,
        couple_size=couple_size,
        overwrite=overwrite,
    )
    print(f"{num_videos} videos in {folder} ({time.perf_counter() - start:.1f} s)")
