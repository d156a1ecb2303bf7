"""Simulated videos in the place of files: rows, and the frames that are made when they are read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from ..data.clip_dataset import FrameSource, TrainingClips, ejection_fractions
from ..data.tracings import polygon_mask
from ..runs.files import replacing
from .echo import SimulatedEcho, sample_echo_parameters, simulate_echo
from .ejection_fraction_distribution import EjectionFractionDistribution, ejection_fraction_at, low_discrepancy
from .fans import whole_fan_parameters
from .profiles import SimulationProfile, get_profile


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["SimulatedFrames", "SimulatedMasks", "SimulatedTrainingClips", "SimulatedVideos"]

_COLUMNS = ("file_name", "ejection_fraction", "is_still", "num_frames", "fps", "seed")


@dataclasses.dataclass(frozen=True)
class SimulatedVideos(Sequence[dict[str, Any]]):
    """Rows of videos that exist only as seeds, used like those of `load_videos`.

    A row depends on the seed and its index only. Its `ejection_fraction` in percent is exactly that of the heart that
    `SimulatedFrames` draws, or 0 if `is_still` says that nothing moves. `seed` decides patient, machine and texture. A
    name as index gives a column.

    Args:
        num_videos: Number of videos.
        seed: Seed.
        distribution: Distribution of the ejection fractions, evenly sampled.
        seconds: Shortest and longest video. A clip of 32 frames, every 2nd of 50 a second, lasts 1.26 s.
        fps: Lowest and highest frame rate; four in ten videos have 50 frames a second if that lies between them.
        still_share: Share of the videos, evenly spread, that show one picture all the time. They eject nothing, and
            teach a model that an ejection fraction is read from motion.
    """

    num_videos: int
    seed: int = 0
    distribution: EjectionFractionDistribution = "uniform"
    seconds: tuple[float, float] = (1.3, 1.9)
    fps: tuple[float, float] = (25.0, 90.0)
    still_share: float = 0.0

    def __post_init__(self) -> None:
        if self.num_videos < 1:
            raise ValueError(f"num_videos must be at least 1, got {self.num_videos}")
        if not 0.6 <= self.seconds[0] <= self.seconds[1]:
            raise ValueError(f"seconds must be (shortest, longest) of at least 0.6 s, got {self.seconds}")
        if not 5 <= self.fps[0] <= self.fps[1]:
            raise ValueError(f"fps must be (lowest, highest) of at least 5 a second, got {self.fps}")
        if not 0 <= self.still_share <= 1:
            raise ValueError(f"still_share lies between 0 and 1, got {self.still_share}")
        ejection_fraction_at(0.5, self.distribution)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(_COLUMNS)

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            if index == "ejection_fraction":
                return self._ejection_fraction(np.arange(self.num_videos)).tolist()
            return [row[index] for row in self]
        if not -self.num_videos <= index < self.num_videos:
            raise IndexError(f"there is no video {index} among {self.num_videos}")
        return self.row(int(index) % self.num_videos)

    def row(self, index: int) -> dict[str, Any]:
        """Row with this index from 0, which may lie beyond the end."""
        rng = np.random.default_rng([self.seed, index, 1])
        low, high = self.fps
        usual, other = rng.random() < 0.4, float(np.round(rng.uniform(low, high)))
        fps = 50.0 if usual and low <= 50 <= high else float(np.clip(other, low, high))
        is_still = bool(self._is_still(index))
        return {
            "file_name": f"SIMULATED-{self.seed}-{index}{'-STILL' if is_still else ''}",
            "ejection_fraction": float(self._ejection_fraction(index)),
            "is_still": is_still,
            "num_frames": int(np.ceil(rng.uniform(*self.seconds) * fps)),
            "fps": fps,
            "seed": [self.seed, index],
        }

    def _ejection_fraction(self, index: np.ndarray | int) -> np.ndarray:
        moving = ejection_fraction_at(low_discrepancy(self.seed, index, 0), self.distribution)
        return np.where(self._is_still(index), 0.0, moving)

    def _is_still(self, index: np.ndarray | int) -> np.ndarray:
        return low_discrepancy(self.seed, index, 1) < self.still_share


@dataclasses.dataclass(frozen=True)
class SimulatedFrames:
    """Frame source (`FrameSource`) that simulates the frames of the rows of `SimulatedVideos`.

    Only the frames asked for are made, so a clip of every second frame costs half of its video.

    Args:
        profile: Ranges of patients and machines, by name or as an object.
        image_size: Height and width in pixels.
        couple_size: How much larger weak hearts are, see `sample_echo_parameters`.
        mirrored_share: Share of the videos in which left and right are exchanged, as some laboratories show them.
        reversed_share: Share of the videos that run backwards, which changes no volume.
        brightness_factor: Largest factor by which the gray values of a video are multiplied or divided, clipped at
            255.
        gamma_factor: Largest factor by which the exponent of the gray values differs from 1, either way.
        zoom_factor: Largest factor by which a video is enlarged or made smaller around its centre.
        vertical_smoothing: Largest share of the vertical detail of 1 to 3 pixels that a video loses; speckle of real
            clips is longer along the beam than that of the simulation.
        whole_fan_share: Share of the videos that show the fan from its tip to its lower end and nothing else, as
            `find_sector` cuts it out of a screen.
        cache: Folder in which whole videos are kept as they are simulated, before everything from `mirrored_share` to
            `zoom_factor`. Training clips then show the same hearts in every epoch, changed in another way.
    """

    profile: str | SimulationProfile = "wide"
    image_size: int = 112
    couple_size: float = 0.0
    mirrored_share: float = 0.0
    reversed_share: float = 0.0
    brightness_factor: float = 1.0
    gamma_factor: float = 1.0
    zoom_factor: float = 1.0
    vertical_smoothing: float = 0.0
    whole_fan_share: float = 0.0
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        get_profile(self.profile)
        for name in ("mirrored_share", "reversed_share", "vertical_smoothing", "whole_fan_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} lies between 0 and 1, got {getattr(self, name)}")
        for name in ("brightness_factor", "gamma_factor", "zoom_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Simulate frames of one video.

        Args:
            row: Row of `SimulatedVideos`.
            indices: Frames to make, ascending, may repeat, shape (K,). Defaults to all frames.

        Returns:
            Frames, uint8, shape (K, image_size, image_size).

        Raises:
            ValueError: If the row has no seed, so it is not a row of `SimulatedVideos`.
        """
        if "seed" not in row:
            raise ValueError(
                f"{row.get('file_name', 'A row')} has no column 'seed': it is no row of SimulatedVideos, whose frames "
                "can be simulated."
            )
        wanted = np.arange(row["num_frames"]) if indices is None else np.asarray(indices, dtype=np.int64)
        turns = np.random.default_rng([*row.get("appearance_seed", row["seed"]), 3])
        is_mirrored, is_reversed = turns.random() < self.mirrored_share, turns.random() < self.reversed_share
        if row.get("is_still", False):
            # Any moment of any heart may stand still.
            moment = np.random.default_rng([*row["seed"], 4])
            row = {**row, "ejection_fraction": float(ejection_fraction_at(moment.random(), "uniform"))}
            wanted = np.full(len(wanted), moment.integers(row["num_frames"]))
        numbers, places = np.unique(row["num_frames"] - 1 - wanted if is_reversed else wanted, return_inverse=True)
        frames = self._simulated(row, numbers)
        if self.zoom_factor > 1:
            frames = _zoomed(frames, self.zoom_factor ** turns.uniform(-1, 1))
        if self.vertical_smoothing > 0:
            share, width = turns.uniform(0, self.vertical_smoothing), turns.uniform(1, 3)
            smooth = gaussian_filter1d(frames, width, axis=1, output=np.float32)
            frames = np.rint(frames + share * (smooth - frames)).astype(np.uint8)
        if self.gamma_factor > 1:
            curve = 255 * np.linspace(0, 1, 256) ** (self.gamma_factor ** turns.uniform(-1, 1))
            frames = np.rint(curve).astype(np.uint8)[frames]
        frames = frames[places]
        if self.brightness_factor > 1:
            factor = self.brightness_factor ** turns.uniform(-1, 1)
            frames = np.clip(np.rint(frames * factor), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(frames[:, :, ::-1]) if is_mirrored else frames

    def _simulated(self, row: dict[str, Any], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames of these numbers from the cache, in which the video is put if it is not there."""
        if self.cache is None or row.get("is_still", False):
            return self._simulate(row, numbers)
        settings = [get_profile(self.profile).name, self.image_size, self.couple_size, self.whole_fan_share]
        name = "_".join(map(str, [*row["seed"], f"{row['ejection_fraction']:.6f}", row["num_frames"], row["fps"]]))
        path = Path(self.cache) / "_".join(map(str, settings)) / f"{name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, self._simulate(row, np.arange(row["num_frames"])))
        return np.load(path, mmap_mode="r")[numbers]

    def _simulate(self, row: dict[str, Any], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        echo, (left, top, right, bottom) = self._echo(row, numbers)
        return echo.frames[:, top:bottom, left:right]

    def _echo(
        self, row: dict[str, Any], numbers: NDArray[np.int64], render: bool = True
    ) -> tuple[SimulatedEcho, tuple[int, int, int, int]]:
        """Heart of a row and the box (left, top, right, bottom) of its frames that is shown."""
        rng = np.random.default_rng(row["seed"])
        parameters = sample_echo_parameters(
            rng, row["ejection_fraction"], row["num_frames"], row["fps"], self.profile, couple_size=self.couple_size
        )
        size, box = self.image_size, (0, 0, self.image_size, self.image_size)
        if np.random.default_rng([*row["seed"], 5]).random() < self.whole_fan_share:
            parameters, size, box = whole_fan_parameters(parameters, self.image_size)
        return simulate_echo(rng, parameters=parameters, image_size=size, frames=numbers, render=render), box


@dataclasses.dataclass(frozen=True)
class SimulatedMasks(SimulatedFrames):
    """Source of the exact masks of the left ventricle in the frames that `SimulatedFrames` makes of the same rows.

    The masks are uint8, 255 inside and 0 outside, and placed as the frames are; the arguments are the same.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # The gray values of a mask do not vary.
        for name, value in (("brightness_factor", 1.0), ("gamma_factor", 1.0), ("vertical_smoothing", 0.0)):
            object.__setattr__(self, name, value)

    def _simulated(self, row: dict[str, Any], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        echo, (left, top, right, bottom) = self._echo(row, numbers, render=False)
        outlines = echo.outlines - (left, top)
        return np.stack([polygon_mask(each, bottom - top, right - left) for each in outlines]).astype(np.uint8) * 255


def _zoomed(frames: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Square frames enlarged by a factor around their centre; what comes into view is black."""
    size = frames.shape[1]
    margin = max(0, int(np.ceil((size / factor - size) / 2)))
    start = margin + size / 2 - size / factor / 2
    box = (start, start, start + size / factor, start + size / factor)
    padded = np.pad(frames, ((0, 0), (margin, margin), (margin, margin)))
    images = (Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR, box) for frame in padded)
    return np.stack([np.asarray(image) for image in images])


class SimulatedTrainingClips(TrainingClips):
    """Training clips of simulated videos: every epoch has the same ejection fractions in other hearts on new machines.

    With a source that has a `cache`, the hearts and machines stay, and only their appearance changes.

    It replaces `TrainingClips` in `fit(..., make_clips=SimulatedTrainingClips)` and takes the same arguments. A clip
    depends on the seeds of the videos and of the clips, the epoch and the index only. `frames` defaults to the wide
    profile at the size of the processor's frames.
    """

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        num_views: int = 1,
        crop_padding: int = 12,
        seed: int = 0,
        frames: FrameSource | None = None,
    ) -> None:
        rows = _RowsOfEpoch(videos, self)
        frames = frames if frames is not None else SimulatedFrames(image_size=processor.crop_size["height"])
        super().__init__(rows, processor, num_views, crop_padding, seed, frames)


class _RowsOfEpoch(Sequence[dict[str, Any]]):
    """Rows with the seeds of the current epoch of the clips."""

    def __init__(self, videos: Sequence[dict[str, Any]], clips: SimulatedTrainingClips) -> None:
        self.videos = videos
        self.clips = clips

    @property
    def column_names(self) -> list[str]:
        return list(_COLUMNS)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: Any) -> Any:
        if index == "ejection_fraction":
            return ejection_fractions(self.videos)
        if isinstance(index, str):
            return [row[index] for row in self]
        row = self.videos[index]
        seed = [*row["seed"], self.clips.seed, self.clips.epoch]
        return {**row, "appearance_seed" if getattr(self.clips.frames, "cache", None) else "seed": seed}
