import os
import time

import pytest

from echomen_hf.app.session_files import SessionFiles


GRACE = 0.3


@pytest.fixture
def files(tmp_path):
    return SessionFiles(tmp_path / "cache", grace_seconds=GRACE)


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "hash" / "SMITH_JOHN.avi"
    path.parent.mkdir()
    path.write_bytes(b"video")
    return path


def wait_until_gone(path):
    end = time.monotonic() + 10
    while path.exists():
        assert time.monotonic() < end, f"{path} is still there"
        time.sleep(0.02)


def test_a_visit_leaves_nothing(files, tmp_path):
    files.new_file("a", ".mp4").write_bytes(b"video")
    kept = files.new_file("b", ".mp4")
    files.forget("a")
    assert kept.exists()
    files.forget("b")
    assert list((tmp_path / "cache").iterdir()) == []
    files.forget("never seen")


def test_the_name_of_an_upload_is_lost(files, upload):
    path = files.claim("a", upload)
    assert path.read_bytes() == b"video"
    assert path.suffix == ".avi"
    assert "SMITH" not in str(path)
    wait_until_gone(upload.parent)
    assert path.exists()


def test_two_visitors_with_the_same_file_both_get_it(files, upload):
    first, second = files.claim("a", upload), files.claim("b", upload)
    first.unlink()
    assert second.read_bytes() == b"video"


def test_an_upload_that_came_again_gets_its_own_time(files, upload):
    files.claim("a", upload)
    time.sleep(GRACE / 2)
    again = upload.with_name("again")
    again.write_bytes(b"video")
    os.replace(again, upload)  # as gradio does
    time.sleep(GRACE * 0.8)  # the first timer has passed
    assert upload.exists()
    files.claim("b", upload)
    wait_until_gone(upload)


def test_without_links_the_upload_is_copied(files, upload, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    assert files.claim("a", upload).read_bytes() == b"video"


def test_an_upload_that_is_not_there(files, tmp_path):
    with pytest.raises(FileNotFoundError):
        files.claim("a", tmp_path / "gone.avi")
    assert list(files.folder("a").iterdir()) == []


def test_a_visitor_cannot_choose_the_folder(files, tmp_path):
    folder = files.folder("../../outside")
    assert folder.parent == tmp_path / "cache"
    assert folder.stat().st_mode & 0o077 == 0


def test_uploads_that_nobody_takes_are_removed(files, upload, tmp_path):
    kept = tmp_path / "other" / "new.avi"
    kept.parent.mkdir()
    kept.touch()
    os.utime(upload, (time.time() - 40, time.time() - 40))
    files.sweep({str(upload), str(kept), str(tmp_path / "gone.avi")}, max_seconds=30)
    assert not upload.parent.exists()
    assert kept.exists()
    files.watch({str(kept)}, every_seconds=0.05, max_seconds=0.1)
    wait_until_gone(kept)


def test_a_visit_without_an_end_is_forgotten_after_half_an_hour(files):
    old, new = (files.new_file(session, ".mp4") for session in "ab")
    for path in (old, old.parent, new.parent):
        os.utime(path, (time.time() - 1900, time.time() - 1900))
    files.sweep((), max_seconds=30)
    assert not old.parent.exists()
    assert new.exists()


def test_close_removes_everything(files, tmp_path, upload):
    for session in "ab":
        files.new_file(session, "")
    files.claim("a", upload)
    files.close()
    assert list((tmp_path / "cache").iterdir()) == []
    assert not upload.exists()
