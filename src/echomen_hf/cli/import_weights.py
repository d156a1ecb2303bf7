"""The command `echomen import-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import takes_layout


@takes_layout
def main(
    file: Annotated[Path, typer.Argument(help="Weights: a .pt, .pth or .safetensors file.")],
    output: Annotated[Path, typer.Option("--output", help="New folder for the checkpoint.")],
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data_dir",
            help="Folder of a data set, or a table of videos, on whose training split the mean and standard deviation "
            "of the pixels are measured. Defaults to the numbers of EchoNet-Dynamic, 32.6 and 49.9.",
        ),
    ] = None,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Convert published weights into a checkpoint.

    \b
    echomen import-weights r2plus1d_18_32_2_pretrained.pt --output runs/echonet

    The weights are those of r2plus1d_18 by EchoNet-Dynamic or torchvision. EchoNet-Dynamic's release brings its head
    for the ejection fraction: predict, evaluate, calibrate, app and train take the folder as --model. torchvision's
    Kinetics-400 file has no such head: train starts both stages from it, and the other commands refuse it.

    Only tensors are read from the file, never code.
    """
    from transformers.utils import logging

    from ..data import load_videos
    from ..hub import import_weights

    logging.disable_progress_bar()
    videos = load_videos(data_dir, split="train", **layout_options) if data_dir is not None else None
    model = import_weights(file, output, videos=videos)
    if model.config.prediction_head is None:
        print("The file has no head for the ejection fraction: train both stages before anything else.")
    print(f"Model, video processor and card are in {output}")
