"""A synthetic data set in EchoNet-Dynamic's layout: FileList.csv, VolumeTracings.csv and Videos/."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri
from tqdm.auto import tqdm

from ..data.provenance import README_NAME, SYNTHETIC_NOTICE
from ..runs.files import replacing
from ..runs.processes import available_cores
from .avi_writer import write_avi
from .echo import SimulatedEcho, sample_echo_parameters, simulate_echo
from .ejection_fraction_distribution import ejection_fraction_at
from .low_discrepancy import low_discrepancy
from .profiles import PROFILES


__all__ = ["SPLIT_COUNTS", "SyntheticEchoNetSettings", "write_synthetic_echonet"]

SPLIT_COUNTS = {"TRAIN": 7465, "VAL": 1288, "TEST": 1277}
"""Videos per split in EchoNet-Dynamic, whose proportions the synthetic splits have."""

_SIMULATOR_VERSION = 1  # part of the settings: a change of what a seed produces makes old folders different
_SETTINGS_FILE = "simulation_settings.json"
_FILE_LIST_COLUMNS = ("FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split")
_README = """{notice}

{num_videos} simulated apical four-chamber echocardiogram videos in the layout of EchoNet-Dynamic, made by
echomen_hf.simulation (settings: {settings}). The ejection fraction that VolumeTracings.csv gives by the method of
disks is exact: it is that of the drawn left-ventricular contour. EF in FileList.csv is the same plus the reading error
whose standard deviation the settings name as label_noise.

Use it to test software. A model trained on it has never seen a heart.
"""


@dataclasses.dataclass(frozen=True)
class SyntheticEchoNetSettings:
    """Everything that decides the content of a synthetic data set.

    Args:
        num_videos: Number of videos.
        seed: Seed; a video's content depends on the seed and its index only.
        image_size: Height and width in pixels.
        label_noise: Standard deviation of the readers' error in points of ejection fraction.
        frames_range: Smallest and largest number of frames.
        profile: Name of the ranges of patients and machines, see `PROFILES`.
        couple_size: How much larger weak hearts are, see `sample_echo_parameters`.
        simulator_version: Version of the simulation.
    """

    num_videos: int
    seed: int = 0
    image_size: int = 112
    label_noise: float = 0.0
    frames_range: tuple[int, int] = (28, 300)
    profile: str = "reference"
    couple_size: float = 0.0
    simulator_version: int = _SIMULATOR_VERSION

    def __post_init__(self) -> None:
        """Check the values."""
        if self.num_videos < 1:
            raise ValueError(f"num_videos must be at least 1, got {self.num_videos}")
        if self.image_size < 32 or self.image_size % 2:
            raise ValueError(f"image_size must be an even number of at least 32 pixels, got {self.image_size}")
        if not 0 <= self.label_noise <= 20:
            raise ValueError(f"label_noise must be within [0, 20] points of ejection fraction, got {self.label_noise}")
        shortest, longest = self.frames_range
        if not 28 <= shortest <= longest:
            raise ValueError(f"frames_range must be (shortest, longest) with 28 <= shortest, got {self.frames_range}")
        if self.profile not in PROFILES:
            raise ValueError(f"unknown simulation profile {self.profile!r}: choose one of {', '.join(PROFILES)}")

    def to_json(self) -> str:
        """Settings as a line of JSON; those that came later stand there only if they are not the default."""
        settings = dataclasses.asdict(self)
        for name in ("profile", "couple_size"):
            if settings[name] == type(self).__dataclass_fields__[name].default:
                del settings[name]
        return json.dumps(settings, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class _VideoRecord:
    """What the tables say about one video."""

    name: str
    ejection_fraction: float
    esv: float
    edv: float
    fps: float
    num_frames: int
    tracings: np.ndarray
    tracing_frames: tuple[int, int]


def write_synthetic_echonet(
    output_dir: str | os.PathLike[str],
    num_videos: int,
    seed: int = 0,
    image_size: int = 112,
    num_workers: int | None = None,
    label_noise: float = 0.0,
    progress: bool = True,
    *,
    frames_range: tuple[int, int] = (28, 300),
    profile: str = "reference",
    couple_size: float = 0.0,
    overwrite: bool = False,
) -> Path:
    """Write a synthetic data set in EchoNet-Dynamic's layout.

    An interrupted call can be repeated: videos that are complete are kept, and FileList.csv is written last, so that a
    folder with it is a whole data set. A folder that already holds the same data set is left as it is.

    Args:
        output_dir: Folder of the data set, made if missing.
        num_videos: Number of videos.
        seed: Seed; a video's content depends on the seed and its index only, not on the number of workers.
        image_size: Height and width in pixels, even.
        num_workers: Processes that simulate; this process alone if 0 or 1. `None` means one per usable processor,
            fewer for small sets, because a process takes seconds to start. With more than one, a script that calls
            this needs the usual `if __name__ == "__main__":` guard.
        label_noise: Standard deviation of the readers' error in points of ejection fraction. It changes EF and ESV in
            FileList.csv; the tracings stay exact.
        progress: Whether to show a progress bar.
        frames_range: Smallest and largest number of frames of a video.
        profile: Name of the ranges of patients and machines, see `PROFILES`.
        couple_size: How much larger weak hearts are, see `sample_echo_parameters`.
        overwrite: Whether to replace a synthetic data set made with other settings.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder holds something else.
        ValueError: If a setting is out of range.
    """
    settings = SyntheticEchoNetSettings(
        num_videos, seed, image_size, label_noise, (frames_range[0], frames_range[1]), profile, couple_size
    )
    output_dir = Path(output_dir)
    videos_dir = output_dir / "Videos"
    _claim_folder(output_dir, settings, overwrite)
    names = [_video_name(seed, index) for index in range(num_videos)]
    present = {path.stem for path in videos_dir.glob("*.avi")}
    file_list = output_dir / "FileList.csv"
    if file_list.exists():
        if present.issuperset(names):
            return output_dir
        file_list.unlink()
    videos_dir.mkdir(exist_ok=True)

    make = partial(_make_video, settings=settings, videos_dir=videos_dir, present=frozenset(present))
    records = list(
        tqdm(
            _map(make, range(num_videos), num_workers),
            total=num_videos,
            desc="Simulating echocardiograms",
            unit="video",
            disable=not progress,
        )
    )
    readme = _README.format(notice=SYNTHETIC_NOTICE, num_videos=num_videos, settings=settings.to_json())
    (output_dir / README_NAME).write_text(readme, encoding="utf-8")
    _write_tracings(output_dir / "VolumeTracings.csv", records)
    _write_file_list(file_list, records, _assign_splits(settings), image_size)
    return output_dir


def _claim_folder(output_dir: Path, settings: SyntheticEchoNetSettings, overwrite: bool) -> None:
    """Make the folder ours, or refuse to touch what someone else put there."""
    settings_file = output_dir / _SETTINGS_FILE
    if output_dir.exists() and not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file; choose a folder for the synthetic data set")
    if output_dir.is_dir() and any(output_dir.iterdir()):
        if not settings_file.exists():
            raise FileExistsError(
                f"{output_dir} is not empty and was not written by this simulator (it has no {_SETTINGS_FILE}); "
                "choose an empty or new folder"
            )
        existing = settings_file.read_text(encoding="utf-8").strip()
        if existing == settings.to_json():
            return
        if not overwrite:
            raise FileExistsError(
                f"{output_dir} holds a synthetic data set with other settings: {existing} instead of "
                f"{settings.to_json()}; choose another folder or pass overwrite=True (--overwrite)"
            )
        (output_dir / "FileList.csv").unlink(missing_ok=True)
        (output_dir / "VolumeTracings.csv").unlink(missing_ok=True)
        shutil.rmtree(output_dir / "Videos", ignore_errors=True)
    output_dir.mkdir(parents=True, exist_ok=True)
    settings_file.write_text(settings.to_json() + "\n", encoding="utf-8")


def _video_name(seed: int, index: int) -> str:
    """A name like EchoNet-Dynamic's: 0X and 16 hexadecimal digits."""
    return "0X" + hashlib.sha256(f"synthetic-echonet-{seed}-{index}".encode()).hexdigest()[:16].upper()


def _assign_splits(settings: SyntheticEchoNetSettings) -> list[str]:
    """EchoNet-Dynamic's proportions to the nearest video, every split having a video if there are three or more."""
    count, total = settings.num_videos, sum(SPLIT_COUNTS.values())
    held_out = {split: max(round(count * SPLIT_COUNTS[split] / total), int(count >= 3)) for split in ("VAL", "TEST")}
    order = np.argsort(low_discrepancy(settings.seed, np.arange(count), 1), kind="stable")
    splits = ["TRAIN"] * count
    for position, index in enumerate(order[: held_out["VAL"] + held_out["TEST"]]):
        splits[index] = "VAL" if position < held_out["VAL"] else "TEST"
    return splits


def _sample_length(rng: np.random.Generator, frames_range: tuple[int, int]) -> int:
    """Number of frames: log-normal around EchoNet-Dynamic's median of 171, cut to the range."""
    low, high = (ndtr(np.log(bound / 171) / 0.36) for bound in (frames_range[0] - 0.5, frames_range[1] + 0.5))
    return int(np.clip(round(171 * np.exp(0.36 * ndtri(rng.uniform(low, high)))), *frames_range))


def _sample_fps(rng: np.random.Generator, num_frames: int) -> float:
    """Frame rate: 50 for 79 %, mostly 43-57 for the rest; low enough that the clip lasts half a second."""
    kind, near, far = rng.random(), float(rng.integers(43, 58)), float(rng.integers(25, 91))
    fps = 50.0 if kind < 0.79 else near if kind < 0.97 else far
    return min(fps, max(2.0 * num_frames, 25.0))


def _make_video(
    index: int, *, settings: SyntheticEchoNetSettings, videos_dir: Path, present: frozenset[str]
) -> _VideoRecord:
    """Simulate the video with this index, write it unless it is there, and return its row of the tables."""
    name = _video_name(settings.seed, index)
    rng = np.random.default_rng([settings.seed, index])
    target = float(ejection_fraction_at(low_discrepancy(settings.seed, index, 0)))
    num_frames = _sample_length(rng, settings.frames_range)
    fps = _sample_fps(rng, num_frames)
    reading_error = settings.label_noise * rng.standard_normal()
    parameters = sample_echo_parameters(
        rng, target, num_frames, fps, settings.profile, couple_size=settings.couple_size
    )
    echo = simulate_echo(rng, parameters=parameters, image_size=settings.image_size, render=name not in present)
    if name not in present:
        write_avi(videos_dir / f"{name}.avi", echo.frames, fps)
    return _record(name, echo, reading_error)


def _record(name: str, echo: SimulatedEcho, reading_error: float) -> _VideoRecord:
    label, esv = echo.ejection_fraction, echo.esv
    if reading_error:
        label = float(np.clip(label + reading_error, 1, 99))
        esv = echo.edv * (1 - label / 100)
    return _VideoRecord(
        name=name,
        ejection_fraction=label,
        esv=esv,
        edv=echo.edv,
        fps=echo.fps,
        num_frames=echo.parameters.num_frames,
        tracings=echo.tracings,
        tracing_frames=(echo.end_diastolic_frame, echo.end_systolic_frame),
    )


def _map(function: partial[_VideoRecord], indices: Sequence[int], num_workers: int | None) -> Iterator[_VideoRecord]:
    """Apply the function in order, in fresh processes if that pays."""
    if num_workers is None:
        num_workers = min(available_cores(), len(indices) // 24)
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    if num_workers <= 1 or len(indices) < 2:
        yield from map(function, indices)
        return
    # spawned, not forked: the caller may have threads (torch, tokenizers) that do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(indices)), mp_context=context) as executor:
        yield from executor.map(function, indices, chunksize=max(1, min(8, len(indices) // (4 * num_workers))))


def _write_tracings(path: Path, records: Sequence[_VideoRecord]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["FileName", "X1", "Y1", "X2", "Y2", "Frame"])
        for record in records:
            for tracing, frame in zip(record.tracings, record.tracing_frames, strict=True):
                writer.writerows([f"{record.name}.avi", *map(float, row), frame] for row in tracing)


def _write_file_list(path: Path, records: Sequence[_VideoRecord], splits: Sequence[str], image_size: int) -> None:
    with replacing(path) as partial_path, partial_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_FILE_LIST_COLUMNS)
        for record, split in zip(records, splits, strict=True):
            fps = int(record.fps) if record.fps == int(record.fps) else record.fps
            measurements = [record.ejection_fraction, record.esv, record.edv]
            writer.writerow([record.name, *measurements, image_size, image_size, fps, record.num_frames, split])
