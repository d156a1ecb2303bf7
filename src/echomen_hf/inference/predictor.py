"""Ejection fraction of any echo file, or of all files of a folder."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate
from transformers.utils import logging

from ..checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NOTICE
from ..data.device_clips import with_pixel_values
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..model.dicom_reading_echomen import is_dicom
from ..model.echo_video_echomen import EchoVideo, require_moving, warn_if_coloured
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibration_for
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..model.video_reading_echomen import read_video
from ..model.video_source_echomen import VIDEO_SUFFIXES, VideoReadError
from .checkpoint import load_checkpoint
from .engines.engine import Engine, check_engine, is_echomen
from .engines.export_folder import is_export, load_export
from .engines.factory import make_engine
from .read_ahead import FileRead, VideoClips, read_ahead
from .video_prediction import (
    VideoPrediction,
    average_clips,
    estimate_clips,
    estimate_together,
    join_clips,
    predict_video,
)
from .windows.shared_windows import SharedWindows, windows_of_engine


__all__ = ["Predictor", "find_videos"]

logger = logging.get_logger(__name__)


class Predictor:
    """Estimates ejection fractions from files, with a model and the video processor stored beside it.

    The encoder runs in an engine, see `make_engine`, and the heads as they are. The default engine rounds differently
    from the model itself, on CPUs by less than 1e-4 EF points. A network of another architecture runs without one.

    Args:
        model: A model, or a folder or Hub id to load model and processor from, or a folder that `echomen export`
            wrote, which brings its own engine. Without, the small model that comes with the package, which was trained
            on simulated hearts only; a warning in the log says so.
        processor: Video processor; the one stored with the model if a folder or id was given.
        protocol: Which clips of a video to average, see `protocol_starts`.
        device: Where to run; the first accelerator, or else the CPU, without.
        batch_size: Clips per forward pass.
        engine: What runs the encoder: `auto`, `torch`, `compile`, `onnx` or `openvino`.
        precision: Precision of the encoder, `fp32` or `bf16`; without, `fp32`, or for an export its own.
        num_workers: Threads that read files while `predict_files` computes.
        share_windows: Whether the overlapping clips of the protocols `all` and `everyN` share the work they have in
            common, see `SharedWindows`: `all` takes half the time, and results are the same but for rounding. Without,
            they do with the engine `torch` on CPUs; `True` asks for it on any device.

    Raises:
        ValueError: If engine and precision do not go together, or are not those of the export, or if clips are to
            share work in an engine that cannot.

    Example:
    ```python
    >>> from echomen_hf import Predictor

    >>> predictor = Predictor()
    >>> prediction = predictor("clip.avi")
    >>> print(f"{prediction.ejection_fraction:.1f} % ({prediction.category})")
    ```
    """

    def __init__(
        self,
        model: EchoMENModel | str | Path | None = None,
        processor: EchoMENVideoProcessor | None = None,
        protocol: str = DEFAULT_PROTOCOL,
        device: str | torch.device | None = None,
        batch_size: int = 4,
        engine: str = "auto",
        precision: str | None = None,
        num_workers: int = 1,
        share_windows: bool | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.protocol = parse_protocol(protocol)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.engine: Engine | None
        if model is None:
            model = SMALL_MODEL_FOLDER
            logger.warning(SMALL_MODEL_NOTICE)
        if isinstance(model, (str, Path)) and is_export(model):
            self.model, stored, self.engine = load_exported(Path(model), engine, precision, device)
            self.processor = processor if processor is not None else stored
            self.device = torch.device("cpu")
        else:
            check_engine(engine, precision or "fp32")
            loaded: EchoMENModel
            if isinstance(model, (str, Path)):
                loaded, stored = load_checkpoint(model)
                processor = processor if processor is not None else stored
            else:
                loaded = model
            if processor is None:
                raise ValueError("A model object needs its video processor: pass `processor`, or the model's folder.")
            self.processor = processor
            accelerator = torch.accelerator.current_accelerator(check_available=True)
            self.device = torch.device(device) if device is not None else (accelerator or torch.device("cpu"))
            self.model = loaded.to(self.device).eval()
            self.engine = None
            if is_echomen(self.model) or (engine, precision) != ("auto", None):
                self.engine = make_engine(
                    self.model, engine, precision or "fp32", processor=processor, batch_size=batch_size
                )
        self._clip_processor = with_channels_of(self.processor, self.engine)
        self._windows: SharedWindows | None = windows_of_engine(
            self.engine, self.protocol, self.batch_size, share_windows
        )

    def __call__(self, source: str | Path | bytes) -> VideoPrediction:
        """Estimate the ejection fraction of one video.

        Args:
            source: Path or bytes of a video or DICOM file.

        Returns:
            EF, what the experts and the clips said, and the name of the file.

        Raises:
            VideoReadError: If the file cannot be read, or has a single frame.
        """
        video = read_cine_loop(source)
        return predict_video(
            self.model, self._clip_processor, video, self.protocol, self.batch_size, self.engine, self._windows
        )

    def predict_files(self, paths: Iterable[str | Path]) -> Iterator[tuple[Path, VideoPrediction | Exception]]:
        """Estimate many files; one that cannot be read does not stop the others.

        Files are read in threads while the model computes, and batches are filled across videos. However many files
        there are and however long they are, only a few of them are in memory at a time.

        Args:
            paths: Files.

        Yields:
            Each path in the order given, with its prediction, or with the error that reading it raised, as soon as it
            is known. Warnings about a file are given just before.
        """
        waiting: deque[_Waiting] = deque()
        batch: list[tuple[_Waiting, dict[str, torch.Tensor]]] = []
        calibration = calibration_for(self.model.config, self.protocol)
        for file in read_ahead(map(Path, paths), self._read, self.num_workers):
            waiting.append(_Waiting(file, calibration))
            if self._windows is not None and isinstance(file.content, VideoClips):
                waiting[-1].add(self._estimate_together(file.content, self._windows))
                yield from _finished(waiting)
                continue
            for clip in waiting[-1].clips():
                batch.append((waiting[-1], clip))
                if len(batch) == self.batch_size:
                    self._estimate(batch)
                    batch = []
                    yield from _finished(waiting)
            if batch and len(waiting) > 2 * self.batch_size:
                # Files that cannot be read fill no batch, and those behind them must not wait for it.
                self._estimate(batch)
                batch = []
            yield from _finished(waiting)
        if batch:
            self._estimate(batch)
        yield from _finished(waiting)

    def _read(self, path: Path) -> VideoClips:
        return VideoClips(read_cine_loop(path), self._clip_processor, self.protocol)

    def _estimate(self, batch: list[tuple[_Waiting, dict[str, torch.Tensor]]]) -> None:
        packed = default_collate([clip for _, clip in batch])
        pixel_values = with_pixel_values(packed, self.device)["pixel_values"]  # (B, T, C, H, W)
        estimates = estimate_clips(self.model, pixel_values, self.engine)
        for position, (video, _) in enumerate(batch):
            video.add({name: values[position : position + 1] for name, values in estimates.items()})

    def _estimate_together(self, clips: VideoClips, windows: SharedWindows) -> dict[str, NDArray[np.float64]]:
        return estimate_together(
            self.model, self._clip_processor, clips.whole_video(), clips.fps, self.protocol, windows
        )


@dataclass
class _Waiting:
    """A file whose clips have not all been estimated."""

    file: FileRead[VideoClips]
    calibration: dict[str, Any] | None
    estimates: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    num_estimated: int = 0

    def add(self, estimates: dict[str, NDArray[np.float64]]) -> None:
        self.estimates.append(estimates)
        self.num_estimated += len(estimates["ejection_fraction"])

    def clips(self) -> Iterator[dict[str, torch.Tensor]]:
        if isinstance(self.file.content, VideoClips):
            yield from (self.file.content[number] for number in range(len(self.file.content)))

    def result(self) -> VideoPrediction | Exception | None:
        content = self.file.content
        if isinstance(content, Exception):
            return content
        if self.num_estimated < len(content):
            return None
        return average_clips(content.source, join_clips(self.estimates), self.calibration)


def _finished(waiting: deque[_Waiting]) -> Iterator[tuple[Path, VideoPrediction | Exception]]:
    while waiting and (result := waiting[0].result()) is not None:
        file = waiting.popleft().file
        file.warn()
        yield file.path, result


def load_exported(
    folder: Path, engine: str, precision: str | None, device: str | torch.device | None
) -> tuple[EchoMENModel, EchoMENVideoProcessor, Engine]:
    """Load what `echomen export` wrote, if it is what is asked for.

    Args:
        folder: Folder.
        engine: Engine that is asked for, or `auto`.
        precision: Precision that is asked for, or `None`.
        device: Device that is asked for, or `None`.

    Returns:
        Model, whose encoder is the engine, video processor, and engine.

    Raises:
        ValueError: If something else is asked for.
    """
    model, processor, stored = load_export(folder)
    for name, asked, having in (
        ("engine", engine if engine != "auto" else None, stored.name),
        ("precision", precision, stored.precision),
        ("device", None if device is None else torch.device(device).type, "cpu"),
    ):
        if asked not in (None, having):
            raise ValueError(
                f"{folder} holds an export for {name} {having!r}, not {asked!r}: leave {name} out, or give the folder "
                "of the trained model."
            )
    return model.eval(), processor, stored


def with_channels_of(processor: EchoMENVideoProcessor, engine: Engine | None) -> EchoMENVideoProcessor:
    """Spare a processor the channels that an engine does not look at.

    Args:
        processor: Video processor; it is left as it is.
        engine: Engine.

    Returns:
        A processor that makes one channel if the engine needs only one (`num_channels`), else `processor`.
    """
    if getattr(engine, "num_channels", processor.num_channels) == processor.num_channels:
        return processor
    single = copy.deepcopy(processor)
    single.num_channels = 1
    single.image_mean, single.image_std = processor.image_mean[:1], processor.image_std[:1]
    return single


def read_cine_loop(source: str | Path | bytes) -> EchoVideo:
    """Read a video that an ejection fraction can be estimated from.

    Args:
        source: Path or bytes of a video or DICOM file.

    Returns:
        The video; one in colour comes with a warning.

    Raises:
        VideoReadError: If the file cannot be read, or has a single frame.
    """
    return warn_if_coloured(require_moving(read_video(source)))


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """List the files meant by a mixture of files and folders.

    Args:
        paths: Files, taken as they are, and folders, searched with all their subfolders, see `looks_like_video`.

    Returns:
        Files, each once, those of a folder in alphabetical order.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no video.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and looks_like_video(file)]
            if not inside:
                raise FileNotFoundError(f"{path} holds no video; looked for {', '.join(VIDEO_SUFFIXES)}.")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"{path} does not exist.")
    return list(found)


def looks_like_video(file: Path) -> bool:
    """Tell whether a file of a folder is to be predicted.

    Args:
        file: File.

    Returns:
        True for the endings of `VIDEO_SUFFIXES` and for DICOM of any name, since exports name files by number or UID;
        False for hidden files and for DICOMDIR, the table of contents of an export.
    """
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        return is_dicom(file)
    except (VideoReadError, OSError):
        return False
