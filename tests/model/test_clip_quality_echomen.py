"""Clips whose estimate is not to be relied on."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from echomen_hf import EjectionFractionPipeline, Predictor, read_video
from echomen_hf.model.clip_quality_echomen import (
    ClipQualityWarning,
    Finding,
    check_clip,
    inspect_clip,
    inspect_estimate,
    inspect_outline,
    overall_quality,
)
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.model.echo_video_echomen import EchoVideo, cut_out_sector
from echomen_hf.model.sector_echomen import Sector
from echomen_hf.model.video_source_echomen import VideoReadError
from echomen_hf.simulation import ExportSettings, export_clip, simulate_echo
from helpers.video_files import beating_texture


SPEC = ClipSpec()


def make_video(frames: np.ndarray, **changes) -> EchoVideo:
    return dataclasses.replace(EchoVideo(frames, 50.0, "a.avi"), **changes)


@pytest.mark.parametrize(
    ("interval", "other", "error", "disagree"),
    [
        ((51.0, 63.0), 49.9, 3.0, True),  # 5.1 points, more than hypot(4, 3) = 5
        ((51.0, 63.0), 50.1, 3.0, False),
        ((51.0, 63.0), 63.4, 3.0, False),  # the upper end is further away: hypot(8, 3) = 8.54
        ((51.0, 63.0), 63.6, 3.0, True),
        ((51.0, 63.0), 54.0, 0.5, False),
        (None, 20.0, 3.0, False),
        ((51.0, 63.0), 20.0, None, False),
        ((51.0, 63.0), float("nan"), 3.0, False),
    ],
)
def test_two_readings_disagree_if_they_differ_by_more_than_both_errors(interval, other, error, disagree):
    found = inspect_outline(
        55.0, interval, SimpleNamespace(ejection_fraction=other, ef_error=error, is_other_view=False)
    )
    assert [finding.quality for finding in found] == ["doubtful"] * disagree
    assert all(f"Two readings disagree: 55 % by the estimate, {other:.0f} %" in finding.reason for finding in found)


def test_readings_of_another_view_are_not_compared():
    other = SimpleNamespace(ejection_fraction=20.0, ef_error=3.0, is_other_view=True)
    assert inspect_outline(55.0, (51.0, 63.0), other) == ()


def test_nothing_speaks_against_a_beating_heart(echonet_dir):
    assert inspect_clip(make_video(beating_texture(100)), SPEC) == ()
    for path in sorted((echonet_dir / "Videos").glob("*.avi"))[:10]:
        assert inspect_clip(read_video(path), ClipSpec(8, 2)) == ()


def still_clips():
    frames = np.repeat(beating_texture(1), 100, axis=0)
    noise = np.random.default_rng(0).integers(-3, 4, frames.shape)
    large = np.repeat(np.repeat(frames, 16, axis=1), 16, axis=2)
    return [frames, np.clip(frames + noise, 0, 255).astype(np.uint8), large]


@pytest.mark.parametrize(
    ("video", "quality", "words"),
    [
        *((make_video(frames), "unusable", "Hardly anything moves") for frames in still_clips()),
        (
            make_video(np.random.default_rng(0).integers(0, 4, (100, 48, 64), dtype=np.uint8)),
            "unusable",
            "picture is black",
        ),
        (make_video(beating_texture(29)), "unusable", "lasts 0.58 s, too short for a whole heart beat"),
        (make_video(beating_texture(31)), "doubtful", "lasts 0.62 s, less than the 1.3 s"),
        (make_video(beating_texture(62)), "doubtful", "lasts 1.24 s, less than the 1.3 s"),
        (make_video(beating_texture(100), coloured_share=0.2), "doubtful", "20% of the picture is coloured"),
        (make_video(beating_texture(100), sector=Sector((0, 0, 64, 48))), "doubtful", "No ultrasound fan"),
        (make_video(beating_texture(30), fps=7.0), "doubtful", "7 frames per second"),
        (make_video(beating_texture(30), fps=3.4), "doubtful", "below 8 the smallest and largest volume"),
        (make_video(beating_texture(30), fps=3.3), "unusable", "3.3 frames per second; below 3.33 a heart beat"),
        (make_video(beating_texture(30), fps=1.0), "unusable", "1 frames per second"),
    ],
)
def test_what_speaks_against_an_estimate(video, quality, words):
    (finding,) = inspect_clip(video, SPEC)
    assert finding.quality == quality
    assert words in finding.reason


def test_a_picture_without_fan_and_ventricle_has_nothing_to_measure():
    noise = make_video(beating_texture(100), sector=Sector((0, 0, 64, 48)))
    for looked_at in ({"is_other_view": True}, {"outline": outlined(0, is_other_view=True)}):
        (finding,) = inspect_clip(noise, SPEC, **looked_at)
        assert finding.quality == "unusable"
        assert "Neither an ultrasound fan nor a left ventricle" in finding.reason


@pytest.mark.parametrize(
    ("size", "qualities"), [((96, 96), ("doubtful", "good")), ((96, 160), ("doubtful", "doubtful"))]
)
def test_a_ventricle_is_enough_where_no_fan_would_be_cut_out(size, qualities):
    frames = np.tile(beating_texture(100), (1, 2, 3))[:, : size[0], : size[1]]
    video = make_video(frames, sector=Sector((0, 0, *size[::-1])))
    assert tuple(overall_quality(inspect_clip(video, SPEC, is_other_view=view)) for view in (None, False)) == qualities


def test_a_clip_that_is_just_long_enough_is_good():
    assert inspect_clip(make_video(beating_texture(63)), SPEC) == ()
    large = np.repeat(np.repeat(beating_texture(80), 16, axis=1), 16, axis=2)
    assert inspect_clip(make_video(large), SPEC) == ()


def outlined(num_beats: int, is_other_view: bool = False, has_both_ends: bool = False) -> SimpleNamespace:
    return SimpleNamespace(beats=(None,) * num_beats, is_other_view=is_other_view, has_both_ends=has_both_ends)


@pytest.mark.parametrize(
    ("num_frames", "outline", "quality", "words"),
    [
        (100, outlined(1), "good", ""),
        (100, outlined(0), "doubtful", "shows no whole heart beat"),
        (100, outlined(0, is_other_view=True), "doubtful", "four-chamber view"),
        (40, outlined(1), "doubtful", "may not hold a whole heart beat"),
        (40, outlined(0, has_both_ends=True), "doubtful", "may not hold a whole heart beat"),
        (40, outlined(0), "unusable", "less than the 1.3 s that the model looks at, and its outline shows half a"),
    ],
)
def test_beats_that_were_outlined_are_counted(num_frames, outline, quality, words):
    found = inspect_clip(make_video(beating_texture(num_frames)), SPEC, outline)
    assert overall_quality(found) == quality
    assert words in " ".join(finding.reason for finding in found)


@pytest.mark.parametrize("ecg", ["sweep", "scroll"])
def test_a_frozen_picture_with_a_moving_trace_is_still(ecg):
    frozen = np.repeat(simulate_echo(12, 58.0, num_frames=60).frames[:1], 60, axis=0)
    for seed in range(3):
        screen = export_clip(frozen, 50.0, ExportSettings(fan_height=0.75, ecg=ecg, seed=seed)).frames
        (finding,) = inspect_clip(cut_out_sector(make_video(screen)), SPEC)
        assert "Hardly anything moves" in finding.reason


def test_what_the_numbers_of_a_model_say_against_an_estimate():
    agreeing, disagreeing = np.array([40.0, 50.0, 60.0]), np.array([40.0, 61.0])
    assert inspect_estimate(agreeing, None) == ()
    assert inspect_estimate(agreeing, 1.0) == ()
    (disagree,) = inspect_estimate(disagreeing, 0.5)
    assert (disagree.quality, "disagree, by 10 EF points" in disagree.reason) == ("doubtful", True)
    (unlike,) = inspect_estimate(agreeing, 1.4)
    assert (unlike.quality, "1.4 times the limit" in unlike.reason) == ("doubtful", True)
    assert inspect_estimate(agreeing, 2.1)[0].quality == "unusable"


def test_the_most_serious_finding_decides():
    doubtful, unusable = Finding("doubtful", "a"), Finding("unusable", "b")
    assert overall_quality([]) == "good"
    assert overall_quality([doubtful]) == "doubtful"
    assert overall_quality([doubtful, unusable, doubtful]) == "unusable"


def test_one_frame_is_refused_and_the_file_is_named_in_warnings():
    with pytest.raises(VideoReadError, match="a.avi: has one frame"):
        check_clip(make_video(beating_texture(1)), SPEC)
    with pytest.warns(ClipQualityWarning, match="^a.avi: The clip lasts 0.12 s"):
        check_clip(make_video(beating_texture(6)), SPEC)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.repeat(beating_texture(1), 60, axis=0), "Hardly anything moves"),
        (np.zeros((60, 48, 64), np.uint8), "black"),
        (beating_texture(6), "too short for a whole heart beat"),
    ],
)
def test_every_way_in_warns_and_gives_no_estimate(tiny_model, tiny_processor, write_video, tmp_path, frames, words):
    tiny_processor.do_find_sector = False
    path = write_video(tmp_path / "clip.avi", frames)
    predictor = Predictor(tiny_model, tiny_processor)
    run = EjectionFractionPipeline(model=tiny_model, video_processor=tiny_processor)
    for estimate in (
        lambda: predictor(path).__dict__,
        lambda: next(result for _, result in predictor.predict_files([path])).__dict__,
        lambda: run(str(path)),
        lambda: run(frames),
    ):
        with pytest.warns(ClipQualityWarning, match=words):
            found = estimate()
        assert found["quality"] == "unusable"
        assert words in found["reasons"][0]
        assert np.isnan(found["ejection_fraction"])
        assert found["interval"] is None


@pytest.mark.filterwarnings("ignore::echomen_hf.model.clip_quality_echomen.ClipQualityWarning")
def test_an_unusable_clip_is_estimated_if_forced(tiny_model, tiny_processor, write_video, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_texture(6))
    forced = Predictor(tiny_model, tiny_processor, force=True)(path)
    assert forced.quality == "unusable"
    assert 0 <= forced.ejection_fraction <= 100
    run = EjectionFractionPipeline(model=tiny_model, video_processor=tiny_processor)
    assert run(str(path), force=True)["ejection_fraction"] == pytest.approx(forced.ejection_fraction, abs=1e-3)
    refused = Predictor(tiny_model, tiny_processor)(path)
    assert refused.category is None
    assert np.isnan([refused.regression, *refused.expert_predictions, *refused.clip_ejection_fractions]).all()
