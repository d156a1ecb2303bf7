"""Reading of videos in threads while the model computes."""

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


__all__ = ["FileRead", "read_ahead"]

T = TypeVar("T")

_recording = threading.local()


@dataclass(frozen=True)
class FileRead(Generic[T]):
    """Content of a file, or the error that reading it raised, and the warnings meanwhile."""

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
