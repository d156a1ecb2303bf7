import av
import numpy as np
import pytest

from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.outline.browser_video import display_size, resize_for_display, write_browser_video
from helpers.outlined_hearts import beating_masks


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((112, 112), (448, 448)),  # enlarged
        ((101, 201), (448, 892)),  # 448 / 101 * 201 = 891.6
        ((600, 800), (600, 800)),  # as it is
        ((1080, 1920), (720, 1280)),  # reduced
        ((300, 1200), (448, 1792)),
        ((8, 8192), (2, 1920)),  # a strip does not grow with its short side
    ],
)
def test_display_size(size, shown):
    assert display_size(*size) == shown


def test_round_trip_keeps_pixels_frames_and_rate(tmp_path):
    path = tmp_path / "clip.mp4"
    frames = list(resize_for_display(np.where(beating_masks(60, size=64), 200, 30).astype(np.uint8)))
    write_browser_video(path, frames, 29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.001)
    decoded = read_video(path).frames
    assert decoded.shape == (60, 448, 448)
    assert np.abs(decoded.astype(float) - np.stack(frames)).mean() < 2
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # plays before it has arrived


def test_a_strip_can_be_written(tmp_path):
    write_browser_video(tmp_path / "strip.mp4", resize_for_display(np.zeros((3, 8192, 8), np.uint8)), 50)
    assert read_video(tmp_path / "strip.mp4").frames.shape == (3, 1920, 2)
