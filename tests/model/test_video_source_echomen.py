from __future__ import annotations

import io
from pathlib import Path

import pytest

from echomen_hf.model.video_source_echomen import VideoReadError, resolve_source


def read_all(source: object) -> bytes:
    with resolve_source(source).open() as file:  # type: ignore[arg-type]
        return file.read()


def test_every_kind_of_source_opens_at_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"content")
    buffer = io.BytesIO(b"content")
    buffer.seek(3)
    for source in (path, str(path), b"content", bytearray(b"content"), memoryview(b"content"), buffer):
        assert read_all(source) == b"content"
    assert not buffer.closed


def test_streams_without_seek_are_read_into_memory() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = [b"con", b"tent"]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            part = self.rest.pop(0) if self.rest else b""
            buffer[: len(part)] = part
            return len(part)

    assert read_all(Pipe()) == b"content"


def test_names_for_messages_and_suffixes(tmp_path: Path) -> None:
    path = tmp_path / "A.DCM"
    path.write_bytes(b"x")
    assert (resolve_source(path).name, resolve_source(path).suffix) == (str(path), ".dcm")
    assert resolve_source(b"x").name == "<bytes>"
    assert resolve_source({"path": "folder/0XA.avi", "bytes": b"x"}).name == "0XA.avi"
    with open(path, "rb") as file:
        assert resolve_source(file).name == "A.DCM"


def test_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.avi").write_bytes(b"home")
    assert read_all("~/a.avi") == b"home"


def test_a_resolved_source_stays_as_it_is() -> None:
    resolved = resolve_source(b"x")
    assert resolve_source(resolved) is resolved


def test_a_windows_path_is_no_url() -> None:
    with pytest.raises(VideoReadError, match="does not exist"):
        resolve_source("C:\\clips\\0XA.avi")
