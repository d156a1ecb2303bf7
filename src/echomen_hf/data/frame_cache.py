"""Decoded frames of a data set on disk, so that a training decodes every video once, not once per epoch."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers.utils import logging

from ..model.video_source_echomen import VideoReadError
from ..runs.files import write_text
from ..runs.processes import available_cores
from .decoded_frames import DecodedFrames


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["FrameCache"]

logger = logging.get_logger(__name__)

FRAMES_FILE = "frames.bin"
INDEX_FILE = "index.jsonl"
FORMAT = 1


class FrameCache:
    """Memory-mapped grayscale frames of many videos, resized and cropped as the video processor does it.

    All frames lie one after the other in `frames.bin`, uint8. `index.jsonl` has a line per video, written once its
    frames are on disk: an interrupted build continues after the last one. Processes that read share the pages.

    Args:
        folder: Folder that `build` has filled.

    Raises:
        ValueError: If the folder holds no cache, or one of another format.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        header, self._entries = read_index(self.folder / INDEX_FILE)
        if header is None:
            raise ValueError(f"{self.folder} holds no frame cache ({INDEX_FILE} is missing); make one by `build`.")
        self._header = header
        self._height, self._width = header["height"], header["width"]
        self._map: np.memmap | None = None

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        num_threads: int | None = None,
        decoder: str = "pyav",
    ) -> FrameCache:
        """Decode the videos that the cache does not hold yet, or whose files have changed.

        Args:
            folder: Folder of the cache, created if missing. One cache may serve several splits.
            videos: Rows as `load_videos` returns them.
            processor: Video processor, whose resizing and cropping are applied.
            num_threads: Threads that decode. Defaults to one per core.
            decoder: See `read_video`.

        Returns:
            The cache.

        Raises:
            ValueError: If the folder holds a cache of frames of another size, or by another decoder.
            OSError: If the disk has too little space, found before anything is decoded.
            VideoReadError: If videos cannot be read. All others are in the cache by then.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        header = {"format": FORMAT, "decoder": decoder, **frame_description(processor)}
        with FileLock(folder / "build.lock"):
            found, entries = read_index(folder / INDEX_FILE)
            if found is not None and found != header:
                different = sorted(key for key in header if found.get(key) != header[key])
                raise ValueError(
                    f"{folder} holds frames that were made otherwise ({', '.join(different)}: "
                    f"{[found.get(key) for key in different]} instead of {[header[key] for key in different]}); "
                    "choose another folder for the frame cache, or remove that one."
                )
            size = (folder / FRAMES_FILE).stat().st_size if (folder / FRAMES_FILE).exists() else 0
            entries = {name: entry for name, entry in entries.items() if entry["end"] <= size}
            missing = [row for row in videos if not is_current(entries.get(row["file_name"]), row)]
            if missing or found is None:
                require_space(folder, missing, header)
                source = DecodedFrames(processor, decoder)
                append(folder, header, entries, missing, source, num_threads or available_cores())
        return cls(folder)

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Copy frames of one video out of the cache.

        Args:
            row: Row as `load_videos` returns it.
            indices: Frames to read, shape (K,). Defaults to all frames.

        Returns:
            Frames, uint8, shape (K, height, width).

        Raises:
            KeyError: If the cache does not hold the video.
        """
        entry = self._entries.get(row["file_name"])
        if entry is None:
            raise KeyError(f"The frame cache {self.folder} does not hold {row['file_name']}; build it for this split.")
        if self._map is None:
            self._map = np.memmap(self.folder / FRAMES_FILE, dtype=np.uint8, mode="r")
        frames = self._map[entry["start"] : entry["end"]].reshape(-1, self._height, self._width)
        return np.asarray(frames.copy() if indices is None else frames[indices])  # either is a copy

    def verify(self) -> None:
        """Compare every video's frames with their checksum, or raise a ValueError that names the damaged ones."""
        damaged = []
        for name in self._entries:
            if zlib.crc32(self.read({"file_name": name}).data) != self._entries[name]["crc32"]:
                damaged.append(name)
        if damaged:
            raise ValueError(
                f"{len(damaged)} videos are damaged in the frame cache {self.folder}, such as "
                f"{', '.join(damaged[:3])}; remove that folder and build it again."
            )

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself instead of receiving its contents.
        return {**self.__dict__, "_map": None}


def frame_description(processor: EchoMENVideoProcessor) -> dict[str, Any]:
    """Everything that decides what a cached frame looks like, as JSON can hold it."""
    sample = processor.resize_frames(np.zeros((1, 112, 112), dtype=np.uint8))
    if not (processor.do_resize or processor.do_center_crop):
        raise ValueError("A frame cache needs frames of one size: set `do_resize` or `do_center_crop`.")
    return {
        "height": int(sample.shape[-2]),
        "width": int(sample.shape[-1]),
        "resize": processor.to_dict()["size"] if processor.do_resize else None,
        "resample": int(processor.resample),
        "find_sector": bool(processor.do_find_sector),
    }


def read_index(path: Path) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """Header, or `None`, and the complete entries by file name of `index.jsonl`; later lines replace earlier ones."""
    if not path.exists():
        return None, {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [json.loads(line) for line in lines if line.endswith("\n")]
    if not complete:
        return None, {}
    header, *entries = complete
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is not the index of a frame cache of format {FORMAT}; choose another folder.")
    header.setdefault("decoder", "pyav")  # there was no other when it was not recorded
    header.setdefault("find_sector", False)
    return header, {entry["name"]: entry for entry in entries}


def is_current(entry: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    """Whether an entry was made from the file as it is now, by size and modification time."""
    if entry is None:
        return False
    state = os.stat(row["video"]["path"])
    return (entry["source_bytes"], entry["source_mtime_ns"]) == (state.st_size, state.st_mtime_ns)


def require_space(folder: Path, videos: Sequence[dict[str, Any]], header: dict[str, Any]) -> None:
    """Log how much will be written, or raise an OSError if the disk has too little space."""
    needed = sum(int(row["num_frames"]) for row in videos) * header["height"] * header["width"]
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"The frame cache of {len(videos)} videos needs {needed / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB free; choose another folder or train without it."
        )
    logger.info(f"Frame cache {folder}: {len(videos)} videos to decode, {needed / 1e9:.2f} GB.")


def append(
    folder: Path,
    header: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    videos: Sequence[dict[str, Any]],
    decoder: DecodedFrames,
    num_threads: int,
) -> None:
    """Decode videos and write them after what the cache holds."""
    # Written anew, so that neither a half line nor entries without frames stay behind.
    index = folder / INDEX_FILE
    write_text(index, "".join(json.dumps(line) + "\n" for line in (header, *entries.values())))
    problems = []
    with open(folder / FRAMES_FILE, "ab") as frames_file, open(index, "a", encoding="utf-8") as index_file:
        frames_file.truncate(max((entry["end"] for entry in entries.values()), default=0))
        frames_file.seek(0, os.SEEK_END)
        for row, frames in tqdm(
            decode_all(videos, decoder, num_threads), total=len(videos), desc="Caching frames", unit="video"
        ):
            if isinstance(frames, VideoReadError):
                problems.append(str(frames))
                continue
            state = os.stat(row["video"]["path"])
            start = frames_file.tell()
            frames_file.write(frames.data)
            frames_file.flush()
            entry = {
                "name": row["file_name"],
                "start": start,
                "end": start + frames.nbytes,
                "crc32": zlib.crc32(frames.data),
                "source_bytes": state.st_size,
                "source_mtime_ns": state.st_mtime_ns,
            }
            index_file.write(json.dumps(entry) + "\n")
            index_file.flush()
    if problems:
        raise VideoReadError(
            f"{len(problems)} videos could not be read into the frame cache; fix them or take them out of "
            "the data set's table:\n" + "\n".join(problems)
        )


def decode_all(
    videos: Sequence[dict[str, Any]], decoder: DecodedFrames, num_threads: int
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8] | VideoReadError]]:
    """Decode videos in several threads, in order, with few in memory; yields each row and its frames or error."""

    def decode(row: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.uint8] | VideoReadError]:
        try:
            return row, np.ascontiguousarray(decoder.read(row))
        except VideoReadError as error:
            return row, error

    remaining = iter(videos)
    with ThreadPoolExecutor(num_threads) as pool:
        while chunk := list(islice(remaining, 8 * num_threads)):
            yield from pool.map(decode, chunk)
