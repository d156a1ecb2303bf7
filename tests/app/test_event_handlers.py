import logging
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import av
import gradio
import numpy as np
import pytest

from echomen_hf.app import UploadLimits, event_handlers
from echomen_hf.app.event_handlers import ANY_CATEGORY, EventHandlers
from echomen_hf.app.reader import ClipReader
from echomen_hf.app.session_files import SessionFiles


VISITOR = SimpleNamespace(session_hash="visitor")


@pytest.fixture
def handlers(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("echomen_hf.app.reader._SAMPLE_FRAMES", 50)  # outlining and drawing 150 takes seconds
    return EventHandlers(
        ClipReader(checkpoint, device="cpu"), UploadLimits(), SessionFiles(tmp_path / "cache", grace_seconds=0.1)
    )


def upload(handlers, path):
    assert handlers.take(str(path), VISITOR) is None
    return list(handlers.read_upload(VISITOR))


def test_estimate_first_then_saliency(handlers, write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_frames)
    first, second = upload(handlers, path)
    assert "EF points" in first[0]
    assert "All numbers" in first[4]
    left = sorted(handlers.files.folder("visitor").iterdir())
    assert [file.suffix for file in left] == [".mp4", ".mp4"]  # the upload is gone, the videos are there
    assert second[3].value is not None
    handlers.leave(VISITOR)
    assert not left[0].exists()


def test_the_clip_shows_the_outline(handlers, monkeypatch):
    monkeypatch.setattr("echomen_hf.app.reader._SAMPLE_FRAMES", 150)  # a whole beat
    first, *_ = handlers.read_sample(3, ANY_CATEGORY, VISITOR)
    assert "outline <strong>" in first[0]
    with av.open(first[2].value["path"] if isinstance(first[2].value, dict) else str(first[2].value)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert 0.001 < (np.ptp(picture, axis=2) > 40).mean() < 0.05


def test_the_next_clip_replaces_the_videos_of_the_last(handlers):
    for seed in (1, 2):
        list(handlers.read_sample(seed, ANY_CATEGORY, VISITOR))
    assert len(list(handlers.files.folder("visitor").iterdir())) == 2


def test_a_newer_clip_of_the_visitor_silences_the_older_one(handlers, tmp_path):
    older = handlers.read_sample(1, ANY_CATEGORY, VISITOR)
    next(older)
    bad = tmp_path / "bad.avi"
    bad.write_text("no video")
    ((summary, *_),) = upload(handlers, bad)
    assert "cannot be read" in summary
    assert list(older) == []  # neither its saliency nor an error
    assert list(handlers.files.folder("visitor").iterdir()) == []


@pytest.mark.slow
def test_an_upload_that_waits_survives_the_clip_before_it(handlers, write_video, beating_frames, tmp_path):
    handlers.take(str(write_video(tmp_path / "clip.avi", beating_frames)), VISITOR)
    assert len(list(handlers.read_sample(1, ANY_CATEGORY, VISITOR))) == 2
    assert len(list(handlers.read_upload(VISITOR))) == 2


def test_two_quick_uploads_are_both_read(handlers, write_video, beating_frames, tmp_path, monkeypatch):
    lengths, read = [], handlers.reader.read
    monkeypatch.setattr(handlers.reader, "read", lambda video: lengths.append(video.num_frames) or read(video))
    for number in (60, 40):
        handlers.take(str(write_video(tmp_path / f"{number}.avi", beating_frames[:number])), VISITOR)
    events = [handlers.read_upload(VISITOR) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(list, events)
    assert lengths == [60, 40]
    summaries = [outputs[0] for outputs in (*first, *second) if isinstance(outputs[0], str)]
    assert all("EF points" in summary for summary in summaries)
    assert "40 frames" in summaries[-1]
    left = sorted(path.suffix for path in handlers.files.folder("visitor").iterdir())
    assert left == [".mp4", ".mp4"]
    handlers.leave(VISITOR)
    assert not list(handlers.files._root.iterdir())


def test_one_visitor_cannot_pile_up_uploads(handlers, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.avi").write_text("no video")
    for number in range(4):
        handlers.take(str(tmp_path / f"{number}.avi"), VISITOR)
    with pytest.raises(gradio.Error, match="Wait until your other clips are read"):
        handlers.take(str(tmp_path / "4.avi"), VISITOR)
    list(handlers.read_upload(VISITOR))
    handlers.take(str(tmp_path / "4.avi"), VISITOR)


def test_a_visitor_who_leaves_while_a_clip_is_read_leaves_nothing(handlers, monkeypatch):
    read = handlers.reader.read

    def leave_and_read(video):
        handlers.leave(VISITOR)
        return read(video)

    monkeypatch.setattr(handlers.reader, "read", leave_and_read)
    assert list(handlers.read_sample(1, ANY_CATEGORY, VISITOR)) == []
    assert not list(handlers.files._root.iterdir())


def test_saliency_that_takes_too_long_is_left_out(handlers, monkeypatch):
    monkeypatch.setattr("echomen_hf.app.saliency.time", SimpleNamespace(monotonic=lambda: float("inf")))
    first, second = handlers.read_sample(1, ANY_CATEGORY, VISITOR)
    assert "EF points" in first[0]
    assert "left out" in second[3].label


def test_a_clip_has_a_deadline(handlers, write_video, beating_frames, tmp_path, monkeypatch):
    monkeypatch.setattr(event_handlers, "_SECONDS_PER_CLIP", 0.0)
    ((summary, *_),) = upload(handlers, write_video(tmp_path / "clip.avi", beating_frames))
    assert "takes too long to read" in summary
    assert list(handlers.files.folder("visitor").iterdir()) == []


@pytest.mark.slow
def test_sample_of_a_category(handlers):
    first, _ = handlers.read_sample(1, "hfref", VISITOR)
    assert "SYNTHETIC" in first[0]


def test_without_saliency_the_estimate_is_all(checkpoint, tmp_path):
    reader = ClipReader(checkpoint, device="cpu", saliency_steps=0)
    handlers = EventHandlers(reader, UploadLimits(), SessionFiles(tmp_path / "cache"))
    assert len(list(handlers.read_sample(1, ANY_CATEGORY, VISITOR))) == 1


def test_a_bad_file_is_explained_and_removed(handlers, tmp_path):
    path = tmp_path / "bad.avi"
    path.write_text("no video")
    ((summary, *_, evidence),) = upload(handlers, path)
    assert "cannot be read" in summary
    assert evidence == ""
    assert list(handlers.files.folder("visitor").iterdir()) == []


def test_an_upload_that_is_gone(handlers, tmp_path):
    ((summary, *_),) = upload(handlers, tmp_path / "gone.avi")
    assert "upload it again" in summary


def test_an_unforeseen_error_is_logged_without_its_message(
    handlers, write_video, beating_frames, tmp_path, monkeypatch, caplog
):
    def fail(*_, **__):
        raise RuntimeError("PatientName is SMITH")

    monkeypatch.setattr(handlers.reader, "read", fail)
    with caplog.at_level(logging.DEBUG):
        ((summary, *_),) = upload(handlers, write_video(tmp_path / "SMITH.avi", beating_frames))
    assert "fault of this program" in summary
    assert "RuntimeError in test_event_handlers.py" in caplog.text
    assert "SMITH" not in caplog.text + summary
