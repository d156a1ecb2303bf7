"""Clips whose estimate is not to be relied on."""

import warnings

import numpy as np
import pytest

from echomen_hf import EjectionFractionPipeline, Predictor, read_video
from echomen_hf.model.clip_checks_echomen import check_clip, clip_cautions
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.video_source_echomen import VideoReadError
from helpers.video_files import beating_texture


SPEC = ClipSpec()


def make_video(frames: np.ndarray) -> EchoVideo:
    return EchoVideo(frames, 50.0, "a.avi")


def test_a_beating_heart_is_not_warned_of(echonet_dir):
    assert clip_cautions(make_video(beating_texture(100)), SPEC) == []
    for path in sorted((echonet_dir / "Videos").glob("*.avi"))[:10]:
        assert clip_cautions(read_video(path), ClipSpec(8, 2)) == []


def test_still_clip():
    frames = np.repeat(beating_texture(1), 100, axis=0)
    noise = np.random.default_rng(0).integers(-3, 4, frames.shape)
    for same in (frames, np.clip(frames + noise, 0, 255).astype(np.uint8)):
        (caution,) = clip_cautions(make_video(same), SPEC)
        assert "Hardly anything moves" in caution


def test_black_clip():
    frames = np.random.default_rng(0).integers(0, 4, (100, 48, 64), dtype=np.uint8)
    (caution,) = clip_cautions(make_video(frames), SPEC)
    assert "black" in caution


def test_short_clip():
    assert clip_cautions(make_video(beating_texture(63)), SPEC) == []
    (caution,) = clip_cautions(make_video(beating_texture(6)), SPEC)
    assert "lasts 0.12 s, less than the 1.3 s" in caution


def test_large_frames_are_checked_as_small_ones_are():
    frames = np.repeat(np.repeat(beating_texture(80), 16, axis=1), 16, axis=2)
    assert clip_cautions(make_video(frames), SPEC) == []
    (caution,) = clip_cautions(make_video(np.repeat(frames[:1], 80, axis=0)), SPEC)
    assert "Hardly anything moves" in caution


def test_one_frame_is_refused_and_the_file_is_named_in_warnings():
    with pytest.raises(VideoReadError, match="a.avi: has one frame"):
        check_clip(make_video(beating_texture(1)), SPEC)
    video = make_video(np.zeros((6, 48, 64), np.uint8))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert check_clip(video, SPEC) is video
    assert [str(warning.message).split(" ")[0] for warning in heard] == ["a.avi:", "a.avi:"]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.repeat(beating_texture(1), 60, axis=0), "Hardly anything moves"),
        (np.zeros((60, 48, 64), np.uint8), "black"),
        (beating_texture(6), "may not hold a whole heart beat"),
    ],
)
def test_every_way_in_warns(tiny_model, tiny_processor, write_video, tmp_path, frames, words):
    path = write_video(tmp_path / "clip.avi", frames)
    predictor = Predictor(tiny_model, tiny_processor)
    run = EjectionFractionPipeline(model=tiny_model, video_processor=tiny_processor)
    for estimate in (
        lambda: predictor(path),
        lambda: list(predictor.predict_files([path])),
        lambda: run(str(path)),
        lambda: run(frames),
    ):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            estimate()
        assert [words in str(warning.message) for warning in heard] == [True]
