"""The command `echomen app`."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from .options import Device, OptionalModel, choose_device


# Some defaults are spelled out, since the modules that define them import torch; a test compares them.
def main(
    model: OptionalModel = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 7860,
    share: Annotated[bool, typer.Option("--share", help="Open a public tunnel through gradio's servers.")] = False,
    device: Device = None,
    notice: Annotated[
        str | None,
        typer.Option("--notice", help='Shown beside the disclaimer, such as "Trained on SYNTHETIC data only."'),
    ] = None,
    saliency_steps: Annotated[
        int,
        typer.Option(
            "--saliency_steps",
            help="Passes for each window to find out where the model looked; 0 for none, with a large model on a CPU.",
        ),
    ] = 8,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Clips that are read at a time.")] = 2,
    max_queue: Annotated[int, typer.Option("--max_queue", help="Visitors who may wait for that.")] = 32,
    max_megabytes: Annotated[float, typer.Option("--max_megabytes", help="Largest file, in MB.")] = 100,
    max_frames: Annotated[int, typer.Option("--max_frames", help="Longest clip, in frames.")] = 1000,
    max_frame_pixels: Annotated[int, typer.Option("--max_frame_pixels", help="Largest height x width.")] = 1920 * 1200,
    max_video_pixels: Annotated[
        int, typer.Option("--max_video_pixels", help="Largest frames x height x width.")
    ] = 400_000_000,
) -> None:
    """Serve a web page that reads echo clips.

    \b
    echomen app --model runs/demo/model

    The page opens on http://127.0.0.1:7860, for this machine only; --host 0.0.0.0 opens it to the network. Not a
    medical device: the numbers are for research.
    """
    from transformers.utils import logging

    from ..app import UploadLimits, build_app

    logging.disable_progress_bar()
    page = build_app(
        model,
        limits=UploadLimits(max_megabytes, max_frames, max_frame_pixels, max_video_pixels),
        notice=notice,
        device=None if device is None else str(choose_device(device)),
        saliency_steps=saliency_steps,
        concurrency=concurrency,
        max_queue=max_queue,
    )
    # A stop by the system is to clean up like one from the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page.launch(server_name=host, server_port=port, share=share)
