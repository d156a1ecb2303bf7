"""Reading of videos in threads, while the model is busy with those before them."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.device_clips import pack_clip
from ..model.clip_sampling_echomen import clip_indices, protocol_starts
from ..model.echo_video_echomen import EchoVideo
from ..model.video_processing_echomen import EchoMENVideoProcessor


__all__ = ["FileRead", "VideoClips", "read_ahead"]

T = TypeVar("T")

_recording = threading.local()


class VideoClips:
    """Clips of one video, each made when it is asked for; only the resized frames that they need are kept.

    Args:
        video: Grayscale video and its frame rate.
        processor: Video processor.
        protocol: Which clips to take, see `protocol_starts`.
    """

    def __init__(self, video: EchoVideo, processor: EchoMENVideoProcessor, protocol: str) -> None:
        spec = processor.clip_spec
        starts = protocol_starts(protocol, video.num_frames, video.fps, spec)
        indices = [clip_indices(int(start), video.num_frames, video.fps, spec) for start in starts]
        self.source, self.fps, self.num_frames = video.source, video.fps, video.num_frames
        self._processor = processor
        self._clips = [clip[clip >= 0] for clip in indices]
        self._needed: NDArray[np.int64] = np.unique(np.concatenate(self._clips))
        self._frames = processor.resize_frames(video.frames[self._needed]).numpy()  # (K, H, W) -> (K, h, w)

    def __len__(self) -> int:
        """Count the clips."""
        return len(self._clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Make one clip.

        Args:
            index: Position of the clip.

        Returns:
            The clip as `pack_clip` makes it.
        """
        frames = self._frames[np.searchsorted(self._needed, self._clips[index])]
        return pack_clip(frames, self._processor)

    def whole_video(self) -> torch.Tensor:
        """Put the frames of the clips where they are in the video.

        Returns:
            Resized frames, uint8, shape (N, H, W); black where no clip looks.
        """
        frames = np.zeros((self.num_frames, *self._frames.shape[1:]), dtype=np.uint8)
        frames[self._needed] = self._frames
        return torch.from_numpy(frames)


@dataclass(frozen=True)
class FileRead(Generic[T]):
    """What became of reading a file.

    Args:
        path: File.
        content: What was read, or the error.
        warned: Warnings meanwhile.
    """

    path: Path
    content: T | Exception
    warned: list[warnings.WarningMessage]

    def warn(self) -> None:
        """Give the warnings, in the thread that calls this."""
        for warning in self.warned:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def read_ahead(paths: Iterable[Path], read: Callable[[Path], T], num_workers: int) -> Iterator[FileRead[T]]:
    """Read files in threads, never more than twice as many ahead as there are threads.

    Warnings of the threads do not appear while they read, since it would be unclear which file they are about.

    Args:
        paths: Files; taken from the iterable as reading goes on.
        read: Function that reads one.
        num_workers: Threads.

    Yields:
        Each file in the order of `paths`, with its content, or with the error that reading it raised.
    """
    with _warnings_kept_apart(), ThreadPoolExecutor(num_workers, thread_name_prefix="read_ahead") as pool:
        ahead: deque = deque()
        try:
            for path in paths:
                ahead.append(pool.submit(_read_recording, path, read))
                if len(ahead) == 2 * num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_recording(path: Path, read: Callable[[Path], T]) -> FileRead[T]:
    _recording.warned = []
    try:
        content: T | Exception = read(path)
    except Exception as error:
        content = error
        # Tracebacks hold the frames decoded until then, and this function, which holds the error.
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return FileRead(path, content, _recording.warned)


@contextmanager
def _warnings_kept_apart() -> Iterator[None]:
    """Record the warnings of threads that read, and show those of others as before.

    `warnings.catch_warnings` cannot do that: it records what any thread of the process warns of.
    """
    shown = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        warned = getattr(_recording, "warned", None)
        if warned is None:
            shown(message, category, filename, lineno, file, line)
        else:
            warned.append(warnings.WarningMessage(message, category, filename, lineno))

    warnings.showwarning = show
    try:
        yield
    finally:
        # Whoever put another function there meanwhile has to take it away.
        if warnings.showwarning is show:
            warnings.showwarning = shown
