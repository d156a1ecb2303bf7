"""Embeddings of clips, computed once, on which stage 2 trains without running the encoder again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.clip_dataset import EvaluationClips, FrameSource, TrainingClips, ejection_fractions
from ..data.clip_vectors import ClipVectors, encoder_checksum
from ..data.collation import collate_clips
from ..data.device_clips import with_pixel_values
from ..data.epoch_dataset import EpochDataset
from ..model.clip_sampling_echomen import parse_protocol
from ..model.float32_precision_echomen import float32_precision
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import replacing
from .arguments import EchoMENTrainingArguments


__all__ = ["EvaluationEmbeddings", "TrainingEmbeddings", "embed_for_stage_2", "vectors_of_splits"]


class TrainingEmbeddings(EpochDataset):
    """Embeddings of several random clips per training video, float32, (draws, videos, D); every epoch shows one draw.

    Epoch e shows the clips that `TrainingClips` would draw in epoch e modulo the number of draws. With as many draws
    as epochs, the result is that of training on videos. With `positions`, (draws, videos), the embeddings are those of
    clips in any order, (clips, D). With several views, an epoch shows as many draws, one after the other.
    """

    def __init__(
        self,
        embeddings: torch.Tensor,
        labels: list[float],
        positions: NDArray[np.int64] | None = None,
        num_views: int = 1,
    ) -> None:
        super().__init__()
        if positions is None:
            positions = np.arange(embeddings.shape[0] * embeddings.shape[1]).reshape(embeddings.shape[:2])
            embeddings = embeddings.flatten(0, 1)  # (draws, videos, D) -> (clips, D)
        self.embeddings = embeddings
        self.ejection_fractions = labels
        self.positions = positions
        self.num_views = min(num_views, len(positions))

    @classmethod
    def of_vectors(
        cls, vectors: ClipVectors, rows: Sequence[dict[str, Any]], num_views: int = 1
    ) -> TrainingEmbeddings:
        """Take the vectors of a training split; epoch e shows clip e of a video, modulo their number."""
        clips = vectors.clips_of(rows)
        draws = max(map(len, clips))
        positions = np.stack([np.resize(of_video, draws) for of_video in clips], axis=1)  # (draws, videos)
        return cls(vectors.vectors, ejection_fractions(rows), positions, num_views)

    def __len__(self) -> int:
        """Count the videos."""
        return self.positions.shape[1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Look up the `embedding`, float32, (D,) or (views, D), and `labels`, EF in percent, of one video."""
        first = self.epoch * self.num_views
        draws = [(first + view) % len(self.positions) for view in range(self.num_views)]
        views = [self.embeddings[self.positions[draw, index]] for draw in draws]
        embedding = views[0] if len(views) == 1 else torch.stack(views)
        return {"embedding": embedding, "labels": self.ejection_fractions[index]}


class EvaluationEmbeddings(Dataset):
    """Embeddings, float32, (clips, D), of the clips that a test protocol takes from every video.

    `video_index`, (clips,), is the position of the video of each clip; labels and names are those of the videos.
    """

    def __init__(self, embeddings: torch.Tensor, video_index: NDArray, labels: NDArray, file_names: list[str]) -> None:
        self.embeddings = embeddings
        self.video_index = video_index
        self.labels = labels
        self.file_names = file_names

    @classmethod
    def of_vectors(cls, vectors: ClipVectors, rows: Sequence[dict[str, Any]]) -> EvaluationEmbeddings:
        """Take the vectors of all clips of a split."""
        clips = vectors.clips_of(rows)
        return cls(
            vectors.vectors[torch.from_numpy(np.concatenate(clips))],
            np.repeat(np.arange(len(clips)), [len(of_video) for of_video in clips]),
            np.array(ejection_fractions(rows), dtype=np.float64),
            [row["file_name"] for row in rows],
        )

    def __len__(self) -> int:
        """Count the clips of all videos."""
        return len(self.embeddings)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Look up the `embedding`, float32, (D,), of one clip and `labels`, EF of its video in percent."""
        return {"embedding": self.embeddings[index], "labels": float(self.labels[self.video_index[index]])}


def embed_for_stage_2(
    model: EchoMENModel,
    train_dataset: TrainingClips,
    eval_dataset: EvaluationClips,
    args: EchoMENTrainingArguments,
    folder: Path,
    wait_for_everyone: Callable[[], None] = lambda: None,
) -> tuple[TrainingEmbeddings, EvaluationEmbeddings]:
    """Run the encoder over every clip that stage 2 needs, except those that an earlier call has embedded.

    Every pass over the data set is a file of its own. Several processes, which must see the same folder, share the
    passes, and an interrupted call continues with the first that is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_from = fingerprint(model, train_dataset, eval_dataset, args)
    passes: dict[str, tuple[Dataset, int | None]] = {"validation": (eval_dataset, None)}
    for draw in range(args.embedding_draws):
        passes[f"train-{draw:03d}"] = (train_dataset, draw)
    missing = [name for name in passes if read_embeddings(folder / f"{name}.safetensors", made_from) is None]
    # Before anyone writes: a process that looked later would divide a shorter list.
    wait_for_everyone()
    for name in missing[args.process_index :: args.world_size]:
        dataset, epoch = passes[name]
        if epoch is not None:
            train_dataset.set_epoch(epoch)
        save_embeddings(folder / f"{name}.safetensors", embed(model, dataset, args, name), made_from)
    wait_for_everyone()
    found = {name: read_embeddings(folder / f"{name}.safetensors", made_from) for name in passes}
    absent = [name for name, embeddings in found.items() if embeddings is None]
    if absent:
        raise OSError(f"Embeddings {', '.join(absent)} are not in {folder}: all processes must see the same folder.")
    validation = found.pop("validation")
    assert validation is not None
    return (
        TrainingEmbeddings(
            torch.stack([embeddings for embeddings in found.values() if embeddings is not None]),
            train_dataset.ejection_fractions,
        ),
        EvaluationEmbeddings(validation, eval_dataset.video_index, eval_dataset.labels, eval_dataset.file_names),
    )


@torch.no_grad()
def embed(model: EchoMENModel, dataset: Dataset, args: EchoMENTrainingArguments, name: str) -> torch.Tensor:
    """Run the encoder over a data set of clips, in their order; float32, on the CPU, shape (clips, D)."""
    model = model.to(args.device).eval()
    if args.channels_last:
        model.to(memory_format=torch.channels_last_3d)
    loader: Any = DataLoader(
        dataset,
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
        collate_fn=collate_clips,
        pin_memory=args.dataloader_pin_memory,
    )
    half = torch.bfloat16 if args.bf16 else torch.float16
    embeddings = []
    with float32_precision(), torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
        for batch in tqdm(loader, desc=f"Embedding {name}", unit="batch", disable=args.disable_tqdm, leave=False):
            clips = with_pixel_values(batch, args.device)["pixel_values"].to(args.device)
            embeddings.append(model.encoder(clips).float().cpu())
    return torch.cat(embeddings)


def vectors_of_splits(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Mapping[str, Any],
    args: EchoMENTrainingArguments,
    protocol: str,
    crop_padding: int,
    frames: FrameSource | None = None,
) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Embed every split of a data set, pass by pass; yields vectors and the columns of `write_clip_vectors`.

    With `args.embedding_draws`, the clips of the training split are those that stage 2 draws.
    """
    for split, rows in videos.items():
        labels = np.array(ejection_fractions(rows))
        names = np.array(list(rows["file_name"]), dtype=object)
        if split == "train" and args.embedding_draws:
            clips = TrainingClips(rows, processor, 1, crop_padding, args.seed + 2, frames)
            for draw in range(args.embedding_draws):
                clips.set_epoch(draw)
                starts = [int(clips.frames_of(index)[0]) for index in range(len(clips))]
                yield (
                    embed(model, clips, args, f"{split}-{draw:03d}"),
                    columns_of(names, starts, draw, split, labels),
                )
        else:
            evaluation = EvaluationClips(rows, processor, parse_protocol(protocol), frames)
            index = evaluation.video_index
            vectors = embed(model, evaluation, args, split)
            yield vectors, columns_of(names[index], evaluation.clip_starts, 0, split, labels[index])


def columns_of(
    names: NDArray, starts: Sequence[int], draw: int, split: str, labels: NDArray[np.float64]
) -> dict[str, Any]:
    """Make the columns of a file of vectors."""
    return {
        "file_name": names.tolist(),
        "clip_start": list(starts),
        "draw": [draw] * len(names),
        "split": [split] * len(names),
        "EF": labels.tolist(),
    }


def fingerprint(
    model: EchoMENModel, train_dataset: TrainingClips, eval_dataset: EvaluationClips, args: EchoMENTrainingArguments
) -> str:
    """Hash everything that embeddings depend on."""
    processor = {key: value for key, value in train_dataset.processor.to_dict().items() if key != "auto_map"}
    names = [[row["file_name"] for row in dataset.videos] for dataset in (train_dataset, eval_dataset)]
    settings = [
        encoder_checksum(model),
        processor,
        names,
        train_dataset.seed,
        train_dataset.crop_padding,
        eval_dataset.protocol,
        args.bf16,
        args.fp16,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def save_embeddings(path: Path, embeddings: torch.Tensor, made_from: str) -> None:
    """Write a file of embeddings whole or not at all."""
    with replacing(path) as partial:
        save_file({"embeddings": embeddings.contiguous()}, partial, metadata={"made_from": made_from})


def read_embeddings(path: Path, made_from: str) -> torch.Tensor | None:
    """Read a file of embeddings; `None` if it is missing, damaged or made from something else."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("embeddings") if file.metadata().get("made_from") == made_from else None
    except (FileNotFoundError, SafetensorError):
        return None
