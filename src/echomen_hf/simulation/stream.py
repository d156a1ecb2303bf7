"""An endless stream of simulated clips."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from ..model.clip_sampling_echomen import ClipSpec, clip_indices, random_start
from .ejection_fraction_distribution import EjectionFractionDistribution
from .profiles import SimulationProfile
from .simulated_videos import SimulatedFrames, SimulatedVideos


__all__ = ["SimulatedEchoStream"]


class SimulatedEchoStream(IterableDataset[dict[str, Any]]):
    """Simulated clips without end, none of which comes twice.

    Item i depends on the seed and i only. Loader processes and ranks of a distributed training share the items:
    process p of n gives the items p, p + n, p + 2n, and so on. An item has `frames`, uint8, (T, H, W); `fps`, their
    rate per second; `ejection_fraction` in percent; and `index`.

    Args:
        seed: Seed.
        num_clips: Number of clips of all processes together; endless if `None`.
        first_clip: Item to begin with, to continue a training.
        profile: Ranges of patients and machines.
        distribution: Distribution of the ejection fractions.
        image_size: Height and width in pixels.
        clip_spec: Number and spacing of the frames of a clip, which then begins at a random frame. Defaults to whole
            videos.
        couple_size: How much larger weak hearts are, see `sample_echo_parameters`.
        transform: Function applied to every item, for example to make the inputs of a model.
    """

    def __init__(
        self,
        seed: int = 0,
        num_clips: int | None = None,
        *,
        first_clip: int = 0,
        profile: str | SimulationProfile = "wide",
        distribution: EjectionFractionDistribution = "uniform",
        image_size: int = 112,
        clip_spec: ClipSpec | None = None,
        couple_size: float = 0.0,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        self.videos = SimulatedVideos(1, seed, distribution)
        self.source = SimulatedFrames(profile, image_size, couple_size)
        self.num_clips = num_clips
        self.first_clip = first_clip
        self.clip_spec = clip_spec
        self.transform = transform

    def item(self, index: int) -> dict[str, Any]:
        """Simulate the item with this number, from 0."""
        row = self.videos.row(index)
        indices, fps = None, row["fps"]
        if self.clip_spec is not None:
            rng = np.random.default_rng([*row["seed"], 2])
            start = random_start(row["num_frames"], fps, self.clip_spec, rng)
            indices = clip_indices(start, row["num_frames"], fps, self.clip_spec)
            indices = indices[indices >= 0]
            fps = fps / self.clip_spec.frame_step(fps)
        frames = self.source.read(row, indices)
        return {"frames": frames, "fps": fps, "ejection_fraction": row["ejection_fraction"], "index": index}

    def __iter__(self) -> Iterator[Any]:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if distributed else 0
        world_size = torch.distributed.get_world_size() if distributed else 1
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        start = self.first_clip + rank * num_workers + worker_id
        end = None if self.num_clips is None else self.first_clip + self.num_clips
        step = world_size * num_workers
        for index in itertools.count(start, step) if end is None else range(start, end, step):
            item = self.item(index)
            yield item if self.transform is None else self.transform(item)
