"""Embeddings of clips, computed once: stage 2 trains on them without running the fixed encoder again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.clip_dataset import EvaluationClips, TrainingClips
from ..data.collation import collate_clips
from ..data.device_clips import with_pixel_values
from ..data.epoch_dataset import EpochDataset
from ..model.modeling_echomen import EchoMENModel
from ..runs.files import replacing
from .arguments import EchoMENTrainingArguments


__all__ = ["EvaluationEmbeddings", "TrainingEmbeddings", "embed_for_stage_2"]


class TrainingEmbeddings(EpochDataset):
    """Embeddings of several random clips per training video; every epoch shows one of them.

    Epoch e shows the clips that `TrainingClips` would draw in epoch e modulo the number of draws. With as many draws
    as epochs the training is that on videos.

    Args:
        embeddings: Embeddings, float32, shape (draws, videos, D).
        labels: EF of every video in percent.
    """

    def __init__(self, embeddings: torch.Tensor, labels: list[float]) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.ejection_fractions = labels

    def __len__(self) -> int:
        """Count the videos."""
        return self.embeddings.shape[1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Look up one video.

        Args:
            index: Position of the video.

        Returns:
            `embedding`, float32, (D,); `labels`, EF in percent.
        """
        draw = self.epoch % len(self.embeddings)
        return {"embedding": self.embeddings[draw, index], "labels": self.ejection_fractions[index]}


class EvaluationEmbeddings(Dataset):
    """Embeddings of the clips that a test protocol takes from every video.

    Args:
        embeddings: Embeddings, float32, shape (clips, D).
        video_index: Position of the video that each clip comes from, shape (clips,).
        labels: EF of every video in percent, shape (videos,).
        file_names: Name of every video.
    """

    def __init__(self, embeddings: torch.Tensor, video_index: NDArray, labels: NDArray, file_names: list[str]) -> None:
        self.embeddings = embeddings
        self.video_index = video_index
        self.labels = labels
        self.file_names = file_names

    def __len__(self) -> int:
        """Count the clips of all videos."""
        return len(self.embeddings)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Look up one clip.

        Args:
            index: Position of the clip.

        Returns:
            `embedding`, float32, (D,); `labels`, EF of its video in percent.
        """
        return {"embedding": self.embeddings[index], "labels": float(self.labels[self.video_index[index]])}


def embed_for_stage_2(
    model: EchoMENModel,
    train_dataset: TrainingClips,
    eval_dataset: EvaluationClips,
    args: EchoMENTrainingArguments,
    folder: Path,
    wait_for_everyone: Callable[[], None] = lambda: None,
) -> tuple[TrainingEmbeddings, EvaluationEmbeddings]:
    """Run the encoder over every clip that stage 2 needs, or take what an earlier call has left.

    Every pass over the data set is a file of its own. Several processes share the passes, and an interrupted call
    continues with the first that is missing.

    Args:
        model: Model whose encoder is used, in evaluation mode.
        train_dataset: Training clips; their epochs 0 to `args.embedding_draws` - 1 are embedded.
        eval_dataset: Validation clips.
        args: Arguments of stage 2.
        folder: Folder for the files, seen by all processes.
        wait_for_everyone: Returns when all processes have called it.

    Returns:
        Training and validation embeddings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_from = fingerprint(model, train_dataset, eval_dataset, args)
    passes: dict[str, tuple[Dataset, int | None]] = {"validation": (eval_dataset, None)}
    for draw in range(args.embedding_draws):
        passes[f"train-{draw:03d}"] = (train_dataset, draw)
    missing = [name for name in passes if read_embeddings(folder / f"{name}.safetensors", made_from) is None]
    # Before anyone writes: processes that looked later would share out a shorter list.
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
    """Run the encoder over a data set of clips, in their order.

    Args:
        model: Model.
        dataset: Clips of one view.
        args: Arguments that say where, in which precision and in what batches.
        name: What is embedded, for the progress bar.

    Returns:
        Embeddings, float32, on the CPU, shape (clips, D).
    """
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
    with torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
        for batch in tqdm(loader, desc=f"Embedding {name}", unit="batch", disable=args.disable_tqdm, leave=False):
            clips = with_pixel_values(batch, args.device)["pixel_values"].to(args.device)
            embeddings.append(model(pixel_values=clips).embedding.float().cpu())
    return torch.cat(embeddings)


def fingerprint(
    model: EchoMENModel, train_dataset: TrainingClips, eval_dataset: EvaluationClips, args: EchoMENTrainingArguments
) -> str:
    """Condense everything that embeddings depend on.

    Args:
        model: Model.
        train_dataset: Training clips.
        eval_dataset: Validation clips.
        args: Arguments of stage 2.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    for key, value in model.encoder.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    processor = {key: value for key, value in train_dataset.processor.to_dict().items() if key != "auto_map"}
    names = [[row["file_name"] for row in dataset.videos] for dataset in (train_dataset, eval_dataset)]
    settings = [
        processor,
        names,
        train_dataset.seed,
        train_dataset.crop_padding,
        eval_dataset.protocol,
        args.bf16,
        args.fp16,
    ]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def save_embeddings(path: Path, embeddings: torch.Tensor, made_from: str) -> None:
    """Write a file of embeddings, completely or not at all.

    Args:
        path: File.
        embeddings: Embeddings, shape (clips, D).
        made_from: Fingerprint of what they were computed from.
    """
    with replacing(path) as partial:
        save_file({"embeddings": embeddings.contiguous()}, partial, metadata={"made_from": made_from})


def read_embeddings(path: Path, made_from: str) -> torch.Tensor | None:
    """Read a file of embeddings if it is whole and was computed from the same things.

    Args:
        path: File.
        made_from: Fingerprint of these things.

    Returns:
        Embeddings, shape (clips, D), or `None`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("embeddings") if file.metadata().get("made_from") == made_from else None
    except (FileNotFoundError, SafetensorError):
        return None
