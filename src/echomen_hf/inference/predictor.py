"""Ejection fraction of any echo file, or of all files of a folder."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging

from ..checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NOTICE
from ..model.clip_quality_echomen import check_clip
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..model.dicom_reading_echomen import is_dicom
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..model.video_reading_echomen import read_video
from ..model.video_source_echomen import VIDEO_SUFFIXES, VideoReadError
from ..outline import LeftVentricleOutliner, load_outliner
from ..runs.processes import available_cores
from .checkpoint import load_checkpoint
from .engines.engine import Engine, check_engine, is_echomen
from .engines.export_folder import is_export, load_export
from .engines.factory import make_engine
from .read_ahead import read_ahead
from .video_clips import VideoClips
from .video_prediction import VideoPrediction, predict_clips
from .windows import SharedWindows, windows_of_engine


if TYPE_CHECKING:
    from ..outline.video_outline import Outliner

__all__ = ["Predictor", "find_videos"]

logger = logging.get_logger(__name__)


class Predictor:
    """Estimates ejection fractions from files, with a model and the video processor stored beside it.

    The encoder runs in an engine, see `make_engine`, and the heads run in the model. The default engine rounds
    differently from the model itself, on CPUs by less than 1e-4 EF points, and so does another batch size. A network
    of another architecture runs without an engine.

    Of a video that is doubtful or unusable, such as one in colour or a black one, a `ClipQualityWarning` tells, and
    so do `quality` and `reasons` of its prediction.

    Args:
        model: A model, or a folder or Hub id to load model and processor from, or the folder of an export, which
            brings its own engine. Defaults to the small model that comes with the package, which was trained on
            simulated hearts only; a warning in the log says so.
        processor: Video processor. Defaults to the one stored with the model if a folder or id was given.
        protocol: Which clips of a video to average, see `protocol_starts`.
        device: Where to run. Defaults to the first accelerator, or else the CPU.
        batch_size: Clips per forward pass. Defaults to 4 on CPUs and 16 on accelerators.
        engine: What runs the encoder: `auto`, `torch`, `compile`, `onnx` or `openvino`.
        precision: Precision of the encoder, `fp32` (IEEE 754, on GPUs too), `tf32` (NVIDIA GPUs) or `bf16`. Defaults
            to `fp32`, or for an export to its own.
        num_workers: Threads that read files while `predict_files` computes. Defaults to 1 on CPUs, which then compute
            as well, and up to 8 on accelerators.
        share_windows: Whether the overlapping clips of the protocols `all` and `everyN` share the work they have in
            common, see `SharedWindows`: `all` takes half the time, and results are the same but for rounding. Defaults
            to sharing with the engine `torch` on CPUs; `True` asks for it on any device.
        force: Whether an unusable video is given an estimate, instead of NaN.
        outline: Whether to outline the left ventricle in every frame too: predictions then have an `outline`, and
            where its ejection fraction contradicts the estimate the quality is `"doubtful"`. An outliner takes the
            place of the one that comes with the package.
        check_view: Whether to look for the left ventricle in a few frames, and to call a video `"doubtful"` that does
            not show it as an apical four-chamber view does. Turn it off for models of other views.

    Raises:
        ValueError: If engine and precision do not go together, or are not those of the export, if clips are to share
            work in an engine that cannot, or if the protocol is `beats` and nothing is outlined.

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
        batch_size: int | None = None,
        engine: str = "auto",
        precision: str | None = None,
        num_workers: int | None = None,
        share_windows: bool | None = None,
        force: bool = False,
        outline: bool | Outliner = False,
        check_view: bool = True,
    ) -> None:
        self.force = force
        for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.protocol = parse_protocol(protocol)
        if self.protocol == "beats" and outline is False:
            raise ValueError("The protocol 'beats' needs outlines: add `outline=True`, or `--outline`.")
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device) if device is not None else (accelerator or torch.device("cpu"))
        if isinstance(model, (str, Path)) and is_export(model):
            self.device = torch.device("cpu")
        is_cpu = self.device.type == "cpu"
        self.batch_size = batch_size or (4 if is_cpu else 16)
        self.num_workers = num_workers or (1 if is_cpu else min(8, available_cores()))
        self.engine: Engine | None
        if model is None:
            model = SMALL_MODEL_FOLDER
            logger.warning(SMALL_MODEL_NOTICE)
        if isinstance(model, (str, Path)) and is_export(model):
            self.model, stored, self.engine = _load_exported(Path(model), engine, precision, device)
            self.processor = processor if processor is not None else stored
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
            self.model = loaded.to(self.device).eval()
            self.engine = None
            if is_echomen(self.model) or (engine, precision) != ("auto", None):
                self.engine = make_engine(
                    self.model, engine, precision or "fp32", processor=processor, batch_size=self.batch_size
                )
        self._clip_processor = _with_channels_of(self.processor, self.engine)
        # The one outlines every frame, if that is asked for; the other looks at a few.
        self.outliner: Outliner | None = None
        self._view_outliner: LeftVentricleOutliner | None = None
        if outline is not False:
            self.outliner = load_outliner().to(self.device) if outline is True else outline
        elif check_view:
            self._view_outliner = load_outliner().to(self.device)
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
        return next(result for _, result in self._predict([(None, self._read_clips(source))]))  # type: ignore

    def predict_files(self, paths: Iterable[Any]) -> Iterator[tuple[Any, VideoPrediction | Exception]]:
        """Estimate many files; one that cannot be read does not stop the others.

        Files are read in threads while the model computes. However many files there are and however long they are,
        only a few of them are in memory at a time. On CPUs with the engine `torch`, every batch holds clips of one
        video; elsewhere batches are filled across videos.

        Args:
            paths: Files: paths, or whatever else `read_video` takes, such as files that are open.

        Yields:
            Each file in the order given, with its prediction, or with the error that reading it raised, as soon as it
            is known. Warnings about a file are given just before.
        """
        sources = (Path(path) if isinstance(path, str) else path for path in paths)
        files = ((file, file.content) for file in read_ahead(sources, self._read_clips, self.num_workers))
        for file, result in self._predict(files):
            file.warn()
            yield file.path, result

    def _predict(self, videos: Iterable[Any]) -> Iterator[tuple[Any, VideoPrediction | Exception]]:
        options = self.protocol, self.batch_size, self.engine, self._windows, self.force
        return predict_clips(self.model, self._clip_processor, videos, *options)

    def _read_clips(self, source: str | Path | bytes) -> VideoClips:
        from ..outline import outline_video, shows_other_view  # with scipy.ndimage, which takes half a second

        whole = read_video(source)
        video = self.processor.crop_to_sector(whole)
        outline, is_other_view = None, None
        if self.outliner is not None:
            outline = outline_video(whole, self.outliner)
        elif self._view_outliner is not None:
            is_other_view = shows_other_view(video, self._view_outliner)
        findings = check_clip(video, self.processor.clip_spec, outline, is_other_view)
        return VideoClips.of(video, self._clip_processor, self.protocol, findings, outline)


def _load_exported(
    folder: Path, engine: str, precision: str | None, device: str | torch.device | None
) -> tuple[EchoMENModel, EchoMENVideoProcessor, Engine]:
    """Load an export if it is what is asked for."""
    model, processor, stored = load_export(folder)
    for name, asked, available in (
        ("engine", engine if engine != "auto" else None, stored.name),
        ("precision", precision, stored.precision),
        ("device", None if device is None else torch.device(device).type, "cpu"),
    ):
        if asked not in (None, available):
            raise ValueError(
                f"{folder} holds an export for {name} {available!r}, not {asked!r}: leave {name} out, or give the "
                "folder of the trained model."
            )
    return model.eval(), processor, stored


def _with_channels_of(processor: EchoMENVideoProcessor, engine: Engine | None) -> EchoMENVideoProcessor:
    """Copy a processor to make one channel only, if the engine looks at no other (`num_channels`)."""
    if getattr(engine, "num_channels", processor.num_channels) == processor.num_channels:
        return processor
    single = copy.deepcopy(processor)
    single.num_channels = 1
    single.image_mean, single.image_std = processor.image_mean[:1], processor.image_std[:1]
    return single


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """List files and the videos inside folders.

    Args:
        paths: Files, taken as they are, and folders, searched with all their subfolders for the endings of
            `VIDEO_SUFFIXES` and for DICOM of any name.

    Returns:
        Files, each once, those of a folder in alphabetical order.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no video.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and _looks_like_video(file)]
            if not inside:
                raise FileNotFoundError(f"{path} holds no video; looked for {', '.join(VIDEO_SUFFIXES)}.")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise FileNotFoundError(f"{path} does not exist.")
    return list(found)


def _looks_like_video(file: Path) -> bool:
    """Find out whether a file of a folder is a video; exports name DICOM files by number or UID."""
    # DICOMDIR is the table of contents of an export.
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    if file.name.lower().endswith(VIDEO_SUFFIXES):
        return True
    try:
        return is_dicom(file)
    except (VideoReadError, OSError):
        return False
