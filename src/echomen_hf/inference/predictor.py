"""Ejection fraction of any echo file, or of all files of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..dicom_reading_echomen import is_dicom
from ..evaluation.protocol import VideoPrediction, predict_video
from ..modeling_echomen import EchoMENModel
from ..video_processing_echomen import EchoMENVideoProcessor
from ..video_reading_echomen import read_video, require_moving, warn_if_coloured
from ..video_source_echomen import VIDEO_SUFFIXES, VideoReadError
from .checkpoint import load_checkpoint


__all__ = ["Predictor", "find_videos"]


class Predictor:
    """Estimates ejection fractions from files, with a model and the video processor stored beside it.

    Args:
        model: A model, or a folder or Hub id to load model and processor from.
        processor: Video processor; the one stored with the model if a folder or id was given.
        protocol: Which clips of a video to average, see `protocol_starts`.
        device: Where to run; the first accelerator, or else the CPU, without.
        batch_size: Clips per forward pass.

    Example:
    ```python
    >>> from echomen_hf import Predictor

    >>> predictor = Predictor("runs/demo/model")
    >>> prediction = predictor("clip.avi")
    >>> print(f"{prediction.ejection_fraction:.1f} % ({prediction.category})")
    ```
    """

    def __init__(
        self,
        model: EchoMENModel | str | Path,
        processor: EchoMENVideoProcessor | None = None,
        protocol: str = DEFAULT_PROTOCOL,
        device: str | torch.device | None = None,
        batch_size: int = 4,
    ) -> None:
        if isinstance(model, (str, Path)):
            loaded, stored = load_checkpoint(model)
            processor = processor if processor is not None else stored
        else:
            loaded = model
        if processor is None:
            raise ValueError("A model object needs its video processor: pass `processor`, or the model's folder.")
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device) if device is not None else (accelerator or torch.device("cpu"))
        self.model = loaded.to(self.device).eval()
        self.processor = processor
        self.protocol = parse_protocol(protocol)
        self.batch_size = batch_size

    def __call__(self, source: str | Path | bytes) -> VideoPrediction:
        """Estimate the ejection fraction of one video.

        Args:
            source: Path or bytes of a video or DICOM file.

        Returns:
            EF, what the experts and the clips said, and the name of the file.

        Raises:
            VideoReadError: If the file cannot be read, or has a single frame.
        """
        video = warn_if_coloured(require_moving(read_video(source)))
        return predict_video(self.model, self.processor, video, self.protocol, self.batch_size)

    def predict_files(self, paths: Iterable[str | Path]) -> Iterator[tuple[Path, VideoPrediction | Exception]]:
        """Estimate many files; one that cannot be read does not stop the others.

        Args:
            paths: Files.

        Yields:
            Each path with its prediction, or with the error that reading it raised.
        """
        for path in map(Path, paths):
            try:
                yield path, self(path)
            except Exception as error:
                yield path, error


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
