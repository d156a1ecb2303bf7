"""The command `echomen train-outline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Profile, keep_inputs, takes_layout


@takes_layout
def main(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder of the model and of the samples.")],
    data_dir: Annotated[
        str | None,
        typer.Option("--data_dir", help="Folder of a data set with tracings. Defaults to simulated recordings."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Folder of an outliner to begin with. Defaults to a new one.")
    ] = None,
    profile: Annotated[Profile, typer.Option("--profile", help="Simulated patients and machines.")] = "wide",
    num_recordings: Annotated[
        int, typer.Option("--num_recordings", min=1, help="Simulated recordings, four moments of each.")
    ] = 6400,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the samples.")] = 10,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Samples of a step.")] = 32,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Highest learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16, where the processor has it.")] = False,
    use_cpu: Annotated[bool, typer.Option("--use_cpu", help="Leave an accelerator alone.")] = False,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Train a network that outlines the left ventricle.

    \b
    echomen train-outline --output_dir runs/outline
    echomen train-outline --output_dir runs/outline --data_dir EchoNet-Dynamic --model runs/simulated

    The samples are made first, and stay in the output folder. Simulated recordings have exact outlines. A data set
    needs tracings: EchoNet-Dynamic's chords, EchoNet-Pediatric's contours or the masks of CAMUS; its training split
    trains, its validation split validates. The same command continues a training that was interrupted.
    """
    keep_inputs(output_dir, model)
    from transformers.utils import logging

    from ..data.tracings import read_tracings
    from ..outline import LeftVentricleOutliner, LeftVentricleOutlinerConfig
    from ..outline.samples import SampleSource, write_samples
    from ..outline.simulated_samples import SimulatedSamples
    from ..outline.traced_samples import TracedSamples
    from ..training.outline_training import VALIDATION_RECORDINGS, train_outliner

    logging.disable_progress_bar()
    outliner = None if model is None else LeftVentricleOutliner.from_pretrained(model)
    config = LeftVentricleOutlinerConfig() if outliner is None else outliner.config
    shape: dict[str, Any] = {"image_size": config.image_size, "frame_offsets": config.frame_offsets}
    sources: dict[str, SampleSource] = {}
    if data_dir is None:
        sources["train"] = SimulatedSamples(num_recordings, seed, profile, **shape)
        sources["validation"] = SimulatedSamples(VALIDATION_RECORDINGS, seed + 1, profile, **shape)
    else:
        for split in ("train", "validation"):
            sources[split] = TracedSamples(read_tracings(data_dir, split=split, **layout_options), **shape)
    files = {split: write_samples(source, output_dir / "samples" / split) for split, source in sources.items()}
    train_outliner(
        files["train"],
        files["validation"],
        output_dir,
        model=outliner,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        description={split: source.settings for split, source in sources.items()},
        bf16=bf16,
        use_cpu=use_cpu,
    )
    print(f"Outliner and log are in {output_dir}")
