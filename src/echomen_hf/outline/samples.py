"""Frames with the exact mask of the left ventricle: made once, kept in a folder, and changed anew in every epoch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torchvision.transforms import functional
from tqdm.auto import tqdm

from ..data.epoch_dataset import EpochDataset
from ..runs.files import replacing, write_text


__all__ = ["OutlineSamples", "Sample", "SampleSource", "write_samples"]

_SHARD = 64  # recordings
_WITHOUT_NEIGHBOURS = 0.1  # of the training samples, as at low frame rates


@dataclasses.dataclass(frozen=True)
class Sample:
    """What the network sees of one moment, uint8, `(offsets, S, S)`, and the mask it is to give, bool, `(S, S)`."""

    frames: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class SampleSource(Protocol):
    """Recordings of which samples are made: `SimulatedSamples` or `TracedSamples`."""

    @property
    def num_recordings(self) -> int:
        """Number of recordings."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the samples, as JSON can hold it."""

    def recording(self, index: int) -> list[Sample]:
        """Samples of the recording with this number, from 0."""


def write_samples(source: SampleSource, folder: str | os.PathLike[str], progress: bool = True) -> list[Path]:
    """Write samples into files of some recordings each; files that are there already are kept.

    Args:
        source: Recordings.
        folder: Folder of the files, created if missing.
        progress: Whether to show a progress bar.

    Returns:
        The files.

    Raises:
        FileExistsError: If the folder holds samples of other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings, record = json.dumps(source.settings), folder / "samples.json"
    if record.exists() and record.read_text(encoding="utf-8") != settings:
        raise FileExistsError(f"{folder} holds samples of other settings: choose another folder, or remove it.")
    write_text(record, settings)
    starts = range(0, source.num_recordings, _SHARD)
    paths = [folder / f"samples-{start:07d}.npy" for start in starts]
    for start, path in zip(tqdm(starts, "Making samples", unit="file", disable=not progress), paths, strict=True):
        if path.exists():
            continue
        numbers = range(start, min(start + _SHARD, source.num_recordings))
        # a row of bytes for each sample: its frames, the bits of its mask, and the number of the recording
        rows = [
            np.concatenate([sample.frames.ravel(), np.packbits(sample.mask), np.array([number], "<u4").view(np.uint8)])
            for number in numbers
            for sample in source.recording(number)
        ]
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.stack(rows))
    return paths


class OutlineSamples(EpochDataset):
    """Samples of files, `pixel_values`, `labels` and `recordings`, in another order and changed in every epoch.

    The samples of a recording come after each other. Left and right are exchanged in half of the samples, as some
    laboratories show them; place, size, turn, brightness, contrast and sharpness change, noise is added, and sometimes
    the neighbours in time are missing.

    Args:
        paths: Files of `write_samples`.
        image_size: Height and width of the frames in pixels.
        frame_offsets: Moments of a sample, see `LeftVentricleOutlinerConfig`.
        seed: Seed of the order and the changes; a change depends on it, the epoch and the sample.
        is_changed: Whether the order and the samples are changed, as for training.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: int,
        frame_offsets: Sequence[float],
        seed: int = 0,
        is_changed: bool = True,
    ) -> None:
        super().__init__()
        self.files = [np.load(path, mmap_mode="r") for path in paths]
        self.ends = np.cumsum([len(file) for file in self.files])
        self.recordings = np.concatenate([np.ascontiguousarray(file[:, -4:]).view("<u4")[:, 0] for file in self.files])
        self.shape = (len(frame_offsets), image_size, image_size)
        self.middle = list(frame_offsets).index(0.0)
        self.seed = seed
        self.is_changed = is_changed
        self._order: tuple[int, NDArray[np.int64]] | None = None  # of which epoch

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.is_changed:
            index = int(self._order_of_epoch()[index])
        number = int(np.searchsorted(self.ends, index, side="right"))
        row = self.files[number][index - self.ends[number]]
        size = int(np.prod(self.shape))
        frames = torch.from_numpy(row[:size].reshape(self.shape).astype(np.float32)) / 255
        mask = torch.from_numpy(np.unpackbits(row[size:-4], count=size // self.shape[0]).reshape(1, *self.shape[1:]))
        recording = int(self.recordings[index])
        if not self.is_changed:
            return {"pixel_values": frames, "labels": mask[0].float(), "recordings": recording}
        rng = np.random.default_rng([self.seed, self.epoch, index])
        if rng.random() < _WITHOUT_NEIGHBOURS:
            frames = frames[self.middle].expand(self.shape)
        frames, labels = _changed(frames, mask.float(), rng)
        return {"pixel_values": frames, "labels": labels[0], "recordings": recording}

    def _order_of_epoch(self) -> NDArray[np.int64]:
        """Numbers of the samples in the order of the epoch: recordings at random, the samples of each together."""
        if self._order is None or self._order[0] != self.epoch:
            names, places = np.unique(self.recordings, return_inverse=True)
            ranks = np.random.default_rng([self.seed, self.epoch]).permutation(len(names))
            self._order = self.epoch, np.argsort(ranks[places], kind="stable")
        return self._order[1]


def _changed(frames: torch.Tensor, mask: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Change frames `(offsets, S, S)` and mask `(1, S, S)` alike."""
    angle = np.radians(rng.uniform(-14, 14))
    across, down = 1.3 ** rng.uniform(-1, 1) * 1.12 ** rng.uniform(-1, 1, 2)
    mirror = rng.choice([-1, 1])
    # from places in the changed picture to those in the old one; half its height is 1
    place = np.array(
        [
            [mirror * across * np.cos(angle), -mirror * across * np.sin(angle), rng.uniform(-0.15, 0.15)],
            [down * np.sin(angle), down * np.cos(angle), rng.uniform(-0.15, 0.15)],
        ]
    )
    stack = torch.cat([frames, mask])[None]  # (1, offsets + 1, S, S)
    grid = F.affine_grid(torch.from_numpy(place).float()[None], list(stack.shape), align_corners=False)
    stack = F.grid_sample(stack, grid, align_corners=False)[0]
    frames, mask = stack[:-1], (stack[-1:] > 0.5).float()
    frames = (frames.clamp(0, 1) ** (1.7 ** rng.uniform(-1, 1)) * 1.7 ** rng.uniform(-1, 1)).clamp(0, 1)
    if rng.random() < 0.3:
        gain = torch.from_numpy(1.5 ** rng.uniform(-1, 1, (1, 1, 3, 3))).float()
        gain = F.interpolate(gain, frames.shape[1:], mode="bilinear", align_corners=True)[0]  # (1, S, S)
        frames = (frames * gain).clamp(0, 1)
    if rng.random() < 0.3:
        frames = functional.gaussian_blur(frames, [5, 5], [rng.uniform(0.3, 1.2)] * 2)
    if rng.random() < 0.3:
        noise = rng.standard_normal(frames.shape, dtype=np.float32) * rng.uniform(0, 0.06)
        frames = (frames + torch.from_numpy(noise)).clamp(0, 1)
    return frames, mask
