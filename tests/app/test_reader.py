import numpy as np
import pytest

from echomen_hf import read_video
from echomen_hf.app.intake import MAX_WINDOWS
from echomen_hf.app.reader import ClipReader, simulate_clip
from echomen_hf.checkpoints import SMALL_MODEL_NAME
from echomen_hf.inference import Predictor
from echomen_hf.labels import HEART_FAILURE_CATEGORIES, heart_failure_category
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.outline import outline_video


@pytest.fixture
def reader(checkpoint):
    return ClipReader(checkpoint, device="cpu")


def test_says_what_the_predictor_says(reader, checkpoint, echonet_dir):
    path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
    prediction = Predictor(checkpoint, device="cpu")(path)
    reading = reader.read(read_video(path))
    assert reading.ejection_fraction == pytest.approx(prediction.ejection_fraction, abs=1e-4)
    assert reading.experts == pytest.approx(prediction.expert_predictions, abs=1e-4)
    assert reading.window_ejection_fractions == pytest.approx(prediction.clip_ejection_fractions, abs=1e-4)
    assert reading.category == prediction.category
    assert reading.interval is reading.coverage is prediction.interval is None  # it was never calibrated


def test_the_interval_of_the_small_model_is_the_predictors(echonet_dir):
    path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
    reader = ClipReader(device="cpu")
    assert reader.name == SMALL_MODEL_NAME
    reading, prediction = reader.read(read_video(path)), Predictor(device="cpu")(path)
    assert reading.interval == pytest.approx(prediction.interval, abs=1e-3)
    assert reading.coverage == 0.9
    assert reading.interval[0] <= reading.ejection_fraction <= reading.interval[1]


def test_the_outline_is_that_of_the_package(reader):
    video = simulate_clip(1).video
    outline, expected = reader.read(video).outline, outline_video(video)
    assert outline.beats == expected.beats
    assert outline.masks.shape == video.frames.shape


def test_windows_lie_inside_the_clip(reader):
    video = simulate_clip(1).video
    reading = reader.read(video)
    assert reading.window_seconds == pytest.approx(29 / 50)
    assert reading.window_starts[0] == 0
    assert reading.window_starts[-1] + reading.window_seconds == pytest.approx(video.duration_seconds)


def test_of_very_many_windows_some_are_read(reader, beating_frames):
    video = EchoVideo(np.tile(beating_frames, (4, 1, 1)), 2.0, "test")  # a window of 0.6 s has 2 frames
    reading = reader.read(video)
    assert len(reading.window_starts) == MAX_WINDOWS
    assert (reading.window_starts[0], reading.window_starts[-1]) == (0, 238 / 2)
    assert reading.interval is None


def test_the_name_shows_no_more_than_the_folder(reader, checkpoint):
    assert reader.name == "tiny"


def test_same_seed_same_clip():
    first, second, other = simulate_clip(4), simulate_clip(4), simulate_clip(5)
    assert np.array_equal(first.video.frames, second.video.frames)
    assert first.true_ejection_fraction == second.true_ejection_fraction != other.true_ejection_fraction
    assert first.synthetic
    assert first.video.duration_seconds == 3


@pytest.mark.parametrize("category", HEART_FAILURE_CATEGORIES)
def test_category_of_a_sample(category):
    assert heart_failure_category(simulate_clip(2, category).true_ejection_fraction) == category


def test_bad_sample():
    with pytest.raises(ValueError, match="0 or more"):
        simulate_clip(-1)
    with pytest.raises(ValueError, match="hfref, hfmref, hfpef"):
        simulate_clip(0, "hfxef")
