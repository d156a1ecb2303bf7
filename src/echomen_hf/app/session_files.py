"""Files of the visitors: one private folder per visit, removed when it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from .intake import known_suffix


__all__ = ["SessionFiles"]


class SessionFiles:
    """Uploads and videos of every visit in a folder of its own below `root`, readable by this user only.

    An upload stays in gradio's folder for `grace_seconds`: equal files of several visitors are one file there, and
    each of them needs this long, not more, to take it.
    """

    def __init__(self, root: str | Path, grace_seconds: float = 5.0) -> None:
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

    def _remove_if_old(self, upload: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            # Younger than that, it has been uploaded again since, and a later timer will remove it.
            if time.time() - upload.stat().st_mtime >= self._grace_seconds:
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
