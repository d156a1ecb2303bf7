"""Weights, clips and videos of the benchmark, written to one folder before it starts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from echomen_hf.data.clip_dataset import EvaluationClips
from echomen_hf.data.collation import collate_clips
from echomen_hf.data.device_clips import with_pixel_values
from echomen_hf.data.loading import load_echonet_dynamic
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.model.clip_sampling_echomen import protocol_starts
from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor
from echomen_hf.model.video_reading_echomen import read_video


__all__ = ["Material", "prepare_material", "random_model", "scale_head"]

DEMO_MODEL, DEMO_DATA = Path("runs/demo/model"), Path("runs/demo/data")
"""Results of `make demo`, the default model and data."""

NUM_CLIPS = 8
"""Number of clips for the full-size network."""

HEAD_RANGE = 10.0
"""Root mean square of the change of EF, in points, by the head of the network with random weights."""


@dataclass(frozen=True)
class Material:
    """Files that the sides read."""

    folder: Path
    data_dir: Path  # in EchoNet-Dynamic's layout
    trained: Path | None  # trained checkpoint, if any
    labels: NDArray[np.float64]  # EF of `trained_clips` in percent, shape (N,)

    @property
    def model(self) -> Path:
        """Checkpoint of the full-size network with random weights."""
        return self.folder / "full_size"

    @property
    def clips(self) -> Path:
        """Normalised clips for it, float32, shape (NUM_CLIPS, T, C, H, W)."""
        return self.folder / "clips.npy"

    @property
    def trained_clips(self) -> Path:
        """Normalised clips for the trained checkpoint, float32, shape (N, T, C, H, W)."""
        return self.folder / "trained_clips.npy"

    def options(self) -> dict[str, Any]:
        """Files for inference, as options of workloads."""
        trained = {"trained": str(self.trained), "trained_clips": str(self.trained_clips)} if self.trained else {}
        return {"model": str(self.model), "clips": str(self.clips), **trained}


def prepare_material(
    folder: Path, model: Path | None, data_dir: Path | None, seed: int, max_clips: int, config: EchoMENConfig
) -> Material:
    """Make all files. Without a model, the results of `make demo` are used if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is None and data_dir is None and DEMO_MODEL.is_dir() and DEMO_DATA.is_dir():
        model, data_dir = DEMO_MODEL, DEMO_DATA
    if model is not None and data_dir is None:
        raise ValueError("A model is measured on videos of its test split: give `--data_dir` too.")
    if data_dir is None:
        data_dir = simulate_videos(folder / "data", seed)
    labels = np.empty(0)
    if model is not None:
        labels = write_trained_clips(folder / "trained_clips.npy", model, data_dir, max_clips)
    material = Material(folder, data_dir, model, labels)
    processor = EchoMENVideoProcessor.for_model(config)
    rows = load_echonet_dynamic(data_dir)["train"].select(range(NUM_CLIPS))
    clips = torch.stack([central_clip(row, processor) for row in rows])
    np.save(material.clips, clips.numpy())
    full_size = random_model(config, clips, seed)
    full_size.save_pretrained(material.model)
    processor.save_pretrained(material.model)
    return material


def simulate_videos(folder: Path, seed: int) -> Path:
    """Simulate videos with the median length of EchoNet-Dynamic's."""
    from echomen_hf.simulation import write_synthetic_echonet

    return write_synthetic_echonet(folder, 12, seed=seed, progress=False, frames_range=(160, 200))


def write_trained_clips(path: Path, model: Path, data_dir: Path, max_clips: int) -> NDArray[np.float64]:
    """Write the central clips of test videos, and return their EF in percent."""
    _, processor = load_checkpoint(model)
    test = load_echonet_dynamic(data_dir)["test"]
    dataset = EvaluationClips(test.select(range(min(max_clips, len(test)))), processor, "center")
    batch = collate_clips([dataset[index] for index in range(len(dataset))])
    np.save(path, with_pixel_values(batch)["pixel_values"].numpy())
    return dataset.labels


def central_clip(row: dict[str, Any], processor: EchoMENVideoProcessor) -> torch.Tensor:
    """Central clip of a video, normalised, (T, C, H, W)."""
    video = read_video(row["video"])
    starts = protocol_starts("center", video.num_frames, video.fps, processor.clip_spec)
    return processor.make_clips(video, starts)[0]


@torch.no_grad()
def random_model(config: EchoMENConfig, clips: torch.Tensor, seed: int) -> EchoMENModel:
    """Make a network with random weights that behaves numerically like a trained one.

    Its batch statistics are those of the clips, so that activations neither vanish nor explode, and its head is scaled
    to move the ejection fraction by `HEAD_RANGE` points, so that errors have the size they have in a trained network.
    """
    torch.manual_seed(seed)
    model = EchoMENModel(config)
    model.config.prediction_head = "regression"
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None  # plain mean over these clips
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.encoder(clips)
    for norm in norms:
        norm.momentum = config.batch_norm_momentum
    model.eval()
    scale_head(model, model.encoder(clips))
    return model


@torch.no_grad()
def scale_head(model: EchoMENModel, embeddings: torch.Tensor) -> None:
    """Scale the weights of the regression head so that they move the ejection fraction by `HEAD_RANGE` points."""
    moved = embeddings @ model.regression_head.weight.T  # (B, 1)
    model.regression_head.weight.mul_(HEAD_RANGE / moved.square().mean().sqrt().item())
