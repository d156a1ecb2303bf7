"""The command `echomen embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from .options import BatchSize, DataDir, Device, NumWorkers, Protocol, keep_inputs, runs_on_cpu, takes_layout


@takes_layout
def main(
    data_dir: DataDir,
    output: Annotated[Path, typer.Option("--output", help="File to write: .parquet or .safetensors.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Folder or Hub id of an EchoMEN model, whose encoder is used.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Folder or Hub id of a pre-trained video model of transformers instead."),
    ] = None,
    protocol: Protocol = "windows",
    draws: Annotated[
        int,
        typer.Option(
            "--draws",
            help="Random clips and crops of each training video, those that stage 2 would draw in as many epochs. "
            "0: the clips of the protocol, as of the other videos.",
        ),
    ] = 0,
    crop_padding: Annotated[int, typer.Option("--crop_padding", help="Largest shift of random crops.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random clips, as of the training.")] = 42,
    frame_cache: Annotated[
        str | None,
        typer.Option("--frame_cache", help="Folder for decoded frames, as of the training. Defaults to none."),
    ] = None,
    batch_size: BatchSize = 20,
    num_workers: NumWorkers = 1,
    device: Device = None,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Write the vectors of a data set's clips, for training.

    \b
    echomen embed --encoder facebook/vjepa2-vitl-fpc64-256 --data_dir EchoNet-Dynamic --output vectors.parquet
    echomen train --stage 2 --embeddings vectors.parquet --output_dir runs/vectors

    A row per clip has file_name, clip_start, draw, split, EF and vector. `echomen train --embeddings` trains experts
    and aggregator on such a file, and `echomen evaluate --embeddings` evaluates them, whichever program has written
    it.
    """
    from transformers.utils import logging

    from .. import EchoMENModel, EchoMENVideoProcessor
    from ..data import FrameCache, load_videos, raise_for_problems, validate_videos
    from ..data.clip_vectors import check_suffix, encoder_checksum, write_clip_vectors
    from ..inference import load_checkpoint
    from ..training import EchoMENTrainingArguments, allocator
    from ..training.embeddings import vectors_of_splits

    check_suffix(output)
    keep_inputs(output, data_dir)
    if (model is None) == (encoder is None):
        raise ValueError("Give either --model, an EchoMEN model, or --encoder, a pre-trained video model.")
    if draws < 0:
        raise ValueError(f"--draws must not be negative, got {draws}.")
    allocator.keep_large_blocks()
    logging.disable_progress_bar()
    if encoder is not None:
        loaded = EchoMENModel.from_encoder(encoder)
        processor = EchoMENVideoProcessor.for_encoder(encoder, loaded.config)
    else:
        loaded, processor = load_checkpoint(str(model), headless=True)
    args = EchoMENTrainingArguments(
        output_dir=str(output.parent),
        per_device_eval_batch_size=batch_size,
        dataloader_num_workers=num_workers,
        use_cpu=runs_on_cpu(device),
        seed=seed,
        embedding_draws=draws,
        report_to="none",
    )
    videos = load_videos(data_dir, **layout_options)
    # Before hours of embedding, and not after them.
    raise_for_problems(validate_videos(cast(Any, videos)))
    frames = None
    if frame_cache is not None:
        frames = FrameCache.build(frame_cache, [row for rows in videos.values() for row in rows], processor)
    parts = vectors_of_splits(loaded, processor, videos, args, protocol, crop_padding, frames)
    count = write_clip_vectors(output, parts, protocol, encoder_checksum(loaded))
    print(f"{count} vectors of {loaded.config.embedding_size} numbers are in {output}")
