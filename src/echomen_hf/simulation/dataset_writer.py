"""Synthetic data sets in EchoNet-Dynamic's layout: FileList.csv, VolumeTracings.csv and Videos/."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.special import ndtr, ndtri
from tqdm.auto import tqdm

from ..data.provenance import ECHONET_DYNAMIC_VIDEOS, README_NAME, SYNTHETIC_NOTICE
from ..runs.files import replacing
from ..runs.processes import available_cores
from .echo import sample_echo_parameters, simulate_echo
from .ejection_fraction_distribution import ejection_fraction_at, low_discrepancy
from .profiles import get_profile


__all__ = ["SyntheticEchoNetSettings", "write_avi", "write_synthetic_echonet"]

_SIMULATOR_VERSION = 1  # part of the settings: a change of what a seed produces makes old folders different
_SETTINGS_FILE = "simulation_settings.json"
_TRACING_COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")
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
    """Everything that decides the content of a synthetic data set; see `write_synthetic_echonet`."""

    num_videos: int
    seed: int = 0
    image_size: int = 112
    label_noise: float = 0.0
    frames_range: tuple[int, int] = (28, 300)
    profile: str = "reference"
    couple_size: float = 0.0
    simulator_version: int = _SIMULATOR_VERSION

    def __post_init__(self) -> None:
        if self.num_videos < 1:
            raise ValueError(f"num_videos must be at least 1, got {self.num_videos}")
        if self.image_size < 32 or self.image_size % 2:
            raise ValueError(f"image_size must be an even number of at least 32 pixels, got {self.image_size}")
        if not 0 <= self.label_noise <= 20:
            raise ValueError(f"label_noise must be within [0, 20] points of ejection fraction, got {self.label_noise}")
        shortest, longest = self.frames_range
        if not 28 <= shortest <= longest:
            raise ValueError(f"frames_range must be (shortest, longest) with 28 <= shortest, got {self.frames_range}")
        get_profile(self.profile)

    def to_json(self) -> str:
        """Settings as a line of JSON; later additions appear only if they differ from their default."""
        settings = dataclasses.asdict(self)
        for name in ("profile", "couple_size"):
            if settings[name] == type(self).__dataclass_fields__[name].default:
                del settings[name]
        return json.dumps(settings, sort_keys=True)


_Rows = tuple[list[Any], list[list[Any]]]
"""A video's row of FileList.csv without its split, and its rows of VolumeTracings.csv."""


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

    An interrupted call can be repeated: complete videos are kept. FileList.csv is written last, so a folder that has
    it is a complete data set. A folder that already holds the same data set is left as it is.

    Args:
        output_dir: Folder of the data set, created if missing.
        num_videos: Number of videos.
        seed: Seed. A video depends on the seed and its index only, not on the number of workers.
        image_size: Height and width in pixels, even.
        num_workers: Number of processes; 0 or 1 simulates in this process. Defaults to one per processor, fewer for
            small data sets. With more than one, the calling script needs the `if __name__ == "__main__":` guard.
        label_noise: Standard deviation of the reading error in EF points. It changes EF and ESV in FileList.csv; the
            tracings stay exact.
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
    made = _map(make, num_videos, num_workers)
    progress_bar = tqdm(made, total=num_videos, desc="Simulating echocardiograms", unit="video", disable=not progress)
    videos, tracings = zip(*progress_bar)
    readme = _README.format(notice=SYNTHETIC_NOTICE, num_videos=num_videos, settings=settings.to_json())
    (output_dir / README_NAME).write_text(readme, encoding="utf-8")
    _write_csv(output_dir / "VolumeTracings.csv", _TRACING_COLUMNS, chain.from_iterable(tracings))
    splits = _assign_splits(settings)
    _write_csv(file_list, _FILE_LIST_COLUMNS, ([*video, split] for video, split in zip(videos, splits, strict=True)))
    return output_dir


def _claim_folder(output_dir: Path, settings: SyntheticEchoNetSettings, overwrite: bool) -> None:
    """Write the settings to the folder, or refuse to touch what someone else put there."""
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
    """EchoNet-Dynamic's proportions to the nearest video; with three or more videos no split is empty."""
    count, total = settings.num_videos, sum(ECHONET_DYNAMIC_VIDEOS.values())
    validation, test = (
        max(round(count * ECHONET_DYNAMIC_VIDEOS[split] / total), int(count >= 3)) for split in ("validation", "test")
    )
    order = np.argsort(low_discrepancy(settings.seed, np.arange(count), 1), kind="stable")
    splits = np.full(count, "TRAIN")
    splits[order[:validation]] = "VAL"
    splits[order[validation : validation + test]] = "TEST"
    return splits.tolist()


def _sample_length(rng: np.random.Generator, frames_range: tuple[int, int]) -> int:
    """Number of frames: log-normal around EchoNet-Dynamic's median of 171, cut to the range."""
    low, high = (ndtr(np.log(bound / 171) / 0.36) for bound in (frames_range[0] - 0.5, frames_range[1] + 0.5))
    return int(np.clip(round(171 * np.exp(0.36 * ndtri(rng.uniform(low, high)))), *frames_range))


def _sample_fps(rng: np.random.Generator, num_frames: int) -> float:
    """Frame rate: 50 for 79 %, mostly 43-57 for the rest; low enough that the clip lasts half a second."""
    kind, near, far = rng.random(), float(rng.integers(43, 58)), float(rng.integers(25, 91))
    fps = 50.0 if kind < 0.79 else near if kind < 0.97 else far
    return min(fps, max(2.0 * num_frames, 25.0))


def _make_video(index: int, *, settings: SyntheticEchoNetSettings, videos_dir: Path, present: frozenset[str]) -> _Rows:
    """Simulate the video with this index, write it unless it exists, and return its rows of the tables."""
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
    label, esv = echo.ejection_fraction, echo.esv
    if reading_error:
        label = float(np.clip(label + reading_error, 1, 99))
        esv = echo.edv * (1 - label / 100)
    shown_fps = int(fps) if fps == int(fps) else fps
    tracings = [
        [f"{name}.avi", *map(float, line), frame]
        for tracing, frame in zip(echo.tracings, (echo.end_diastolic_frame, echo.end_systolic_frame))
        for line in tracing
    ]
    return [name, label, esv, echo.edv, settings.image_size, settings.image_size, shown_fps, num_frames], tracings


def _map(function: partial[_Rows], count: int, num_workers: int | None) -> Iterator[_Rows]:
    """Apply the function in order, in new processes if that is faster."""
    if num_workers is None:
        num_workers = min(available_cores(), count // 24)
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    if num_workers <= 1 or count < 2:
        yield from map(function, range(count))
        return
    # Spawned, not forked: the caller may have threads (torch, tokenizers) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, count), mp_context=context) as executor:
        yield from executor.map(function, range(count), chunksize=max(1, min(8, count // (4 * num_workers))))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as partial_path, partial_path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_avi(path: str | os.PathLike[str], frames: np.ndarray, fps: float) -> None:
    """Write a grayscale video as MJPEG in AVI, the format of EchoNet-Dynamic.

    Args:
        path: File to write or replace.
        frames: `(frames, height, width)` uint8 array with even height and width.
        fps: Frames per second, rounded to 1/1000.

    Raises:
        ValueError: If `frames` is not such an array.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(
            f"{path}: frames must be a uint8 array (frames, height, width) with even height and width, "
            f"got {frames.dtype} {frames.shape}"
        )
    _, height, width = frames.shape
    neutral_chroma = np.full(height * width // 2, 128, dtype=np.uint8)
    with replacing(path) as partial, av.open(str(partial), "w", format="avi") as container:
        # a fixed quantiser keeps the corners black and the bytes the same on every run
        stream = container.add_stream(
            "mjpeg", rate=Fraction(fps).limit_denominator(1000), options={"qmin": "2", "qmax": "2"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            planes = np.concatenate([image.ravel(), neutral_chroma]).reshape(height * 3 // 2, width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuvj420p")))
        container.mux(stream.encode(None))
