"""Files of the visitors: one private folder per visit, removed when it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path

from .intake import known_suffix


__all__ = ["SessionFiles"]

_KEEP_SECONDS = 1800
"""For visits whose end is not noticed."""


class SessionFiles:
    """Uploads and videos of every visit in a folder of its own below `root`, readable by this user only.

    An upload stays in gradio's folder for `grace_seconds`: equal files of several visitors are one file there, and
    each of them needs this long, not more, to take it.
    """

    def __init__(self, root: str | Path, grace_seconds: float = 15.0) -> None:
        self._root = Path(root)
        self._grace_seconds = grace_seconds
        self._taken: set[Path] = set()
        self._folders: dict[str, Path] = {}
        self._lock = threading.Lock()
        atexit.register(self.close)

    def folder(self, session: str) -> Path:
        """Folder of a visit, created on first use; its identifier, chosen by the browser, is not part of the path."""
        with self._lock:
            if session not in self._folders:
                self._root.mkdir(parents=True, exist_ok=True)
                self._folders[session] = Path(tempfile.mkdtemp(prefix="echomen_", dir=self._root))
            return self._folders[session]

    def new_file(self, session: str, suffix: str) -> Path:
        """Create an empty file with this suffix in the folder of a visit."""
        handle, path = tempfile.mkstemp(suffix, dir=self.folder(session))
        os.close(handle)
        return Path(path)

    def claim(self, session: str, upload: str | Path) -> Path:
        """Take an upload over to the folder of the visit; FileNotFoundError if it is not there."""
        upload = Path(upload)
        path = self.new_file(session, known_suffix(upload))
        path.unlink()
        try:
            os.link(upload, path)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            shutil.copyfile(upload, path)
        with self._lock:
            self._taken.add(upload)
        timer = threading.Timer(self._grace_seconds, self._remove_if_old, [upload])
        timer.daemon = True
        timer.start()
        return path

    def watch(self, uploads: Collection[str], every_seconds: float = 15.0, max_seconds: float = 30.0) -> None:
        """Remove what is left of `uploads`, as gradio lists them, that nobody takes, and of visits without an end."""

        def sweep() -> None:
            while True:
                time.sleep(every_seconds)
                self.sweep(uploads, max_seconds)

        threading.Thread(target=sweep, name="echomen-sweep", daemon=True).start()

    def sweep(self, uploads: Collection[str], max_seconds: float) -> None:
        """Remove uploads older than this, and the folders of visits without a new file for half an hour."""
        for upload in map(Path, list(uploads)):
            if _age(upload) > max_seconds:
                self._remove(upload)
        for session, folder in list(self._folders.items()):
            if min(map(_age, [folder, *folder.glob("*")])) > _KEEP_SECONDS:
                self.forget(session)

    def _remove_if_old(self, upload: Path) -> None:
        # Younger than that, it has been uploaded again since, and a later timer will remove it.
        if _age(upload) >= self._grace_seconds:
            self._remove(upload)

    def _remove(self, upload: Path) -> None:
        with self._lock:
            self._taken.discard(upload)
        upload.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another file is in it
            upload.parent.rmdir()

    def forget(self, session: str) -> None:
        """Remove everything of a visit."""
        with self._lock:
            folder = self._folders.pop(session, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        for session in list(self._folders):
            self.forget(session)
        for upload in list(self._taken):
            self._remove(upload)


def _age(path: Path) -> float:
    """Seconds since a file was written, negative for one that is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return -1.0
