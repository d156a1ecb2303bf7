"""Training data: the videos of a data set, or videos simulated when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import datasets

from ..data import FrameCache, load_rows, raise_for_problems, read_data_set, validate_videos
from ..data.clip_dataset import FrameSource, TrainingClips
from ..data.clip_vectors import ClipVectors, read_clip_vectors, refuse_layout_options
from ..data.decoded_frames import DecodedFrames
from ..model.video_processing_echomen import EchoMENVideoProcessor, as_size
from ..model.video_reading_echomen import require_decoder
from ..runs.files import file_checksum
from ..simulation import SimulatedFrames, SimulatedTrainingClips, SimulatedVideos
from .arguments import EchoMENTrainingArguments
from .data_arguments import DataArguments, SimulationArguments
from .processes import sees_folder_of_first_process


__all__ = ["TrainingData", "load_training_data"]

# Added to the seed of a run, so that no heart is in both TRAIN and VAL.
_VAL_SEED_OFFSET = 1_000_003

# Settings that ask for something else than to train on vectors; what recipes say of clips is not among them.
_NOT_FOR_VECTORS = ("eval_protocol", "frame_cache", "lora_rank", "simulated_videos", "train_encoder")


@dataclass(frozen=True)
class TrainingData:
    """Videos of both splits, the source of their frames (`None`: their files), what run.json records, and vectors."""

    train: Sequence[dict[str, Any]]
    val: Sequence[dict[str, Any]]
    frames: FrameSource | None = None
    make_clips: Callable[..., TrainingClips] = TrainingClips
    description: dict[str, Any] = field(default_factory=dict)
    vectors: ClipVectors | None = None


def load_training_data(
    data_args: DataArguments,
    simulation_args: SimulationArguments,
    args: EchoMENTrainingArguments,
    processor: EchoMENVideoProcessor | None = None,
) -> TrainingData:
    """Load the data set in `data_dir`, or vectors, or prepare the simulation of `simulated_videos`."""
    if data_args.embeddings is not None:
        return _load_vectors(data_args, simulation_args, args)
    assert processor is not None
    if bool(data_args.data_dir) == bool(simulation_args.simulated_videos):
        raise ValueError(
            "Give either `--data_dir`, the folder of a data set, or `--simulated_videos`, the number of "
            "videos that an epoch simulates; not both."
        )
    if simulation_args.simulated_videos:
        return _simulate(data_args, simulation_args, args, processor)
    return _load(data_args, args, processor)


def _load_vectors(
    data_args: DataArguments, simulation_args: SimulationArguments, args: EchoMENTrainingArguments
) -> TrainingData:
    """Take the labels of vectors from the data set, whose videos are not opened, or from the file of vectors."""
    vectors = read_clip_vectors(str(data_args.embeddings))
    ignored = {
        each.name: f"`--{each.name}` (default: {each.default})"
        for arguments in (data_args, simulation_args, args)
        for each in fields(arguments)
        if each.name in _NOT_FOR_VECTORS and getattr(arguments, each.name) != each.default
    }
    if data_args.eval_protocol == vectors.protocol:
        ignored.pop("eval_protocol", None)
    if ignored:
        raise ValueError(
            f"`--embeddings` takes the place of videos and encoder: leave out {', '.join(ignored.values())}."
        )
    if data_args.data_dir is None:
        refuse_layout_options(map("`--{}`".format, data_args.layout_options))
        videos = vectors.rows()
        description = {}
    else:
        data_set = read_data_set(str(data_args.data_dir), **data_args.layout_options)
        videos = load_rows(data_set)
        description = {"file_list_sha256": data_set.checksum}
    require_splits(videos, data_args.data_dir or vectors.name, divisible=data_args.data_dir is not None)
    description["embeddings_sha256"] = file_checksum(Path(str(data_args.embeddings)))
    return TrainingData(videos["train"], videos["validation"], description=description, vectors=vectors)


def require_splits(videos: Mapping[str, Any], name: str, divisible: bool = True) -> None:
    """Refuse a data set without training or validation videos."""
    for split, title in (("train", "TRAIN"), ("validation", "VAL")):
        if split not in videos:
            divide = ", or divide all by `--split_by patient`" if divisible else ""
            raise ValueError(
                f"{name} has no {split} videos, which training needs; mark some as {title} in column Split{divide}."
            )


def _load(data_args: DataArguments, args: EchoMENTrainingArguments, processor: EchoMENVideoProcessor) -> TrainingData:
    require_decoder(data_args.decoder)
    with main_process_first(args, Path(datasets.config.HF_DATASETS_CACHE), "loading the data set"):
        data_set = read_data_set(str(data_args.data_dir), **data_args.layout_options)
        videos = load_rows(data_set)
    require_splits(videos, str(data_args.data_dir))
    train, val = videos["train"], videos["validation"]
    if data_args.validate_data != "none" and args.process_index == 0:
        for rows in (train, val):
            raise_for_problems(validate_videos(rows, level=cast(Any, data_args.validate_data)))
    frames: FrameSource | None = None
    if data_args.frame_cache is not None:
        with main_process_first(args, Path(data_args.frame_cache), "caching frames"):
            cache = FrameCache.build(data_args.frame_cache, [*train, *val], processor, decoder=data_args.decoder)
            if data_args.validate_data == "frames" and args.process_index == 0:
                cache.verify()
        frames = cache
    elif data_args.decoder != "pyav":
        frames = DecodedFrames(processor, data_args.decoder)
    # Content and not location: a run may continue where its data were moved to.
    description: dict[str, Any] = {"file_list_sha256": data_set.checksum}
    options = {name: value for name, value in data_args.layout_options.items() if name != "split_file"}
    if options.keys() - {"require_tracings"}:
        description["layout_options"] = options
    if data_args.decoder != "pyav":
        description["decoder"] = data_args.decoder
    return TrainingData(train, val, frames, description=description)


def main_process_first(args: EchoMENTrainingArguments, folder: Path, what: str) -> AbstractContextManager:
    """Let one process fill a folder before the others read it: the first of all who share it, or of each machine."""
    return args.main_process_first(local=not all(sees_folder_of_first_process(folder)), desc=what)


def _simulate(
    data_args: DataArguments,
    simulation_args: SimulationArguments,
    args: EchoMENTrainingArguments,
    processor: EchoMENVideoProcessor,
) -> TrainingData:
    if data_args.frame_cache is not None:
        raise ValueError("`--frame_cache` has no use for simulated videos, of which every epoch shows others.")
    if data_args.decoder != "pyav":
        raise ValueError("`--decoder` has no use for simulated videos, which are not decoded.")
    distribution, profile = cast(Any, simulation_args.simulated_distribution), simulation_args.simulation_profile
    # The place of the cache changes no result, whether there is one does.
    recorded = {**vars(simulation_args), "simulation_cache": simulation_args.simulation_cache is not None}
    return TrainingData(
        train=SimulatedVideos(
            simulation_args.simulated_videos,
            args.seed,
            distribution,
            fps=(simulation_args.lowest_simulated_fps, 90.0),
            still_share=simulation_args.still_share,
        ),
        val=SimulatedVideos(simulation_args.simulated_val_videos, args.seed + _VAL_SEED_OFFSET, distribution),
        frames=SimulatedFrames(
            profile,
            image_size=as_size(processor.crop_size).height,
            mirrored_share=simulation_args.mirrored_share,
            reversed_share=simulation_args.reversed_share,
            brightness_factor=simulation_args.brightness_factor,
            gamma_factor=simulation_args.gamma_factor,
            zoom_factor=simulation_args.zoom_factor,
            vertical_smoothing=simulation_args.vertical_smoothing,
            whole_fan_share=simulation_args.whole_fan_share,
            cache=simulation_args.simulation_cache,
        ),
        make_clips=SimulatedTrainingClips,
        description={f"simulation.{name}": value for name, value in recorded.items()},
    )
