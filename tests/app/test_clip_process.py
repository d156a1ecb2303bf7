import json
import logging
import subprocess

import av
import numpy as np
import pytest
from tests.model.test_hostile_files import HOSTILE

from echomen_hf.app import UploadLimits, clip_process
from echomen_hf.app.clip_process import draw_clip, read_clip
from echomen_hf.app.intake import receive_clip
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.model.video_source_echomen import VideoReadError
from helpers.video_files import encode_video


LIMITS = UploadLimits()


def strip(folder):
    frames = np.random.default_rng(0).integers(0, 256, (40, 8, 4096), np.uint8)
    return encode_video(folder / "strip.mkv", frames, codec="ffv1", pix_fmt="gray")


def many_frames(folder):
    # The stream states no number of frames that could be refused at once.
    return encode_video(folder / "long.mkv", np.zeros((1200, 128, 160), np.uint8), codec="mpeg4", pix_fmt="yuv420p")


@pytest.fixture
def read(tmp_path):
    """Function that reads a clip in a process of its own."""

    def run(path, limits=LIMITS, seconds=60.0):
        files = {"frames": tmp_path / "frames.npy", "video": tmp_path / "clip.mp4"}
        return read_clip(path, limits, ClipSpec(), **files, seconds=seconds)

    return run


def test_a_process_reads_what_this_one_reads(read, write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_frames[:20])
    clip, expected = read(path), receive_clip(path, UploadLimits(), ClipSpec())
    assert np.array_equal(clip.video.frames, expected.video.frames)
    assert (clip.video.fps, clip.cautions) == (expected.video.fps, expected.cautions)
    assert clip.video.sector == expected.video.sector
    assert clip.video.coloured_share == expected.video.coloured_share
    assert read_video(tmp_path / "clip.mp4").frames.shape == (20, 448, 448)


def test_saliency_is_painted_over_the_frames(beating_frames, tmp_path):
    np.save(tmp_path / "frames.npy", beating_frames)
    np.save(tmp_path / "saliency.npy", np.ones((60, 16, 16), np.float32))
    sizes = []
    for saliency in (None, tmp_path / "saliency.npy"):
        video = tmp_path / "drawn.mp4"
        draw_clip(tmp_path / "frames.npy", 50, UploadLimits(), video=video, seconds=60, saliency=saliency)
        sizes.append(read_video(video).frames.mean())
    assert sizes[1] > sizes[0] + 20


def test_the_border_of_masks_is_drawn(beating_frames, tmp_path):
    np.save(tmp_path / "frames.npy", beating_frames)
    np.save(tmp_path / "masks.npy", beating_frames == 200)
    video = tmp_path / "drawn.mp4"
    options = {"masks": tmp_path / "masks.npy", "marks": {0: "ED"}}
    draw_clip(tmp_path / "frames.npy", 50, UploadLimits(), video=video, seconds=60, **options)
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(pictures) == 60
    coloured = [(np.ptp(picture, axis=2) > 40) for picture in (pictures[0], pictures[15])]
    assert all(0.001 < where.mean() < 0.05 for where in coloured)
    assert coloured[0][-50:, :80].any() and not coloured[1][-50:, :80].any()  # the name of a marked frame


def test_a_bad_file_is_named_without_its_name(read, tmp_path):
    path = tmp_path / "SMITH.avi"
    path.write_text("no video")
    with pytest.raises(VideoReadError, match="The clip: is not a video that FFmpeg can open") as caught:
        read(path)
    assert "SMITH" not in str(caught.value)


def test_a_process_ends_at_its_deadline(read, write_video, beating_frames, tmp_path):
    with pytest.raises(VideoReadError, match="takes too long to read; cut the clip"):
        read(write_video(tmp_path / "clip.avi", beating_frames), seconds=0.01)


@pytest.mark.skipif(not clip_process.Path("/proc/self/statm").exists(), reason="only Linux keeps to the limit")
def test_a_process_has_a_limit_of_memory(read, write_video, tmp_path):
    class Tight(UploadLimits):
        max_process_bytes = 30_000_000

    rows = np.arange(256, dtype=np.uint8)
    frames = np.stack([np.add.outer(rows, rows + number) for number in range(200)])  # 13 MB, and as much to join them
    path = write_video(tmp_path / "clip.avi", frames)
    with pytest.raises(VideoReadError, match="memory"):
        read(path, Tight())
    assert read(path).video.num_frames == 200


@pytest.mark.skipif(not clip_process.Path("/proc/self/status").exists(), reason="only Linux keeps to the limit")
@pytest.mark.parametrize("make", [*HOSTILE, strip, many_frames], ids=lambda make: make.__name__)
def test_hostile_files_take_no_more_than_the_limit_of_memory(read, make, tmp_path, monkeypatch):
    peak = tmp_path / "peak"
    monkeypatch.setattr(
        clip_process,
        "_START",
        f"""{clip_process._START}
status = open("/proc/self/status").read()
open({str(peak)!r}, "w").write(status.split("VmHWM:")[1].split()[0])
""",
    )
    limits = UploadLimits(max_video_pixels=20_000_000)
    with pytest.raises(VideoReadError) as caught:
        read(make(tmp_path), limits)
    assert "fault" not in caught.value.problem
    assert 1000 * int(peak.read_text()) < 1.2 * limits.max_process_bytes


def test_a_process_that_crashes_is_a_bad_clip(read, monkeypatch, caplog, write_video, beating_frames, tmp_path):
    monkeypatch.setattr(clip_process, "_START", "import os; os.abort()")
    with caplog.at_level(logging.ERROR), pytest.raises(VideoReadError, match="its data are damaged"):
        read(write_video(tmp_path / "SMITH.avi", beating_frames))
    assert "SMITH" not in caplog.text


def test_an_unforeseen_error_is_logged_without_its_message(tmp_path, caplog):
    arguments = {"frames": "SMITH.npy", "fps": 50, "video": "SMITH.mp4", "saliency": None, "masks": None, "marks": []}
    with caplog.at_level(logging.ERROR), pytest.raises(VideoReadError, match="ran into a fault of this program"):
        clip_process._run("draw", arguments, UploadLimits(), 60)
    assert "Reading a clip failed: FileNotFoundError in" in caplog.text
    assert "SMITH" not in caplog.text


def test_a_process_starts_without_pytorch(tmp_path, monkeypatch):
    loaded = []
    start = clip_process._START.replace("main()", "import json; print(json.dumps({'loaded': sorted(sys.modules)}))")
    monkeypatch.setattr(clip_process, "_START", start)
    run = subprocess.run

    def keep_answer(*arguments, **options):
        done = run(*arguments, **options)
        loaded.extend(json.loads(done.stdout)["loaded"])
        return done

    monkeypatch.setattr(subprocess, "run", keep_answer)
    clip_process._run("read", {}, UploadLimits(), 60)
    assert "av" in loaded
    assert not {"torch", "transformers", "gradio", "matplotlib"} & set(loaded)
