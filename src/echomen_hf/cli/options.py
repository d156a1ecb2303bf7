"""Options that several commands share, each with one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer


if TYPE_CHECKING:
    import torch


DataDir = Annotated[str, typer.Option("--data_dir", help="Folder in EchoNet-Dynamic's layout.")]
Model = Annotated[str, typer.Option("--model", help="Folder or Hub id of a trained model.")]
ModelFolder = Annotated[Path, typer.Option("--model", help="Folder of a trained model.")]
OptionalModel = Annotated[
    str | None,
    typer.Option("--model", help="Folder or Hub id of a trained model. Defaults to the small one of the package."),
]
Protocol = Annotated[str, typer.Option("--protocol", help="Clips per video: all, everyN, windows, center, or N.")]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Clips per forward pass.")]
NumWorkers = Annotated[int, typer.Option("--num_workers", help="Processes that read videos.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Where to run, such as cpu or cuda:0. Defaults to an accelerator if there is one."),
]
Coverage = Annotated[float, typer.Option("--coverage", help="Share of videos that intervals are to hold.")]
KeepLargeBlocks = Annotated[
    bool,
    typer.Option(
        "--keep_large_blocks", help="Keep freed memory for the next allocation: faster on Linux CPUs, same numbers."
    ),
]


def choose_device(device: str | None) -> str | torch.device:
    """Take the device that is named, else an accelerator, else the CPU."""
    import torch

    return device or torch.accelerator.current_accelerator(check_available=True) or "cpu"
