import itertools
import pickle

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from echomen_hf.data.clip_dataset import EvaluationClips, TrainingClips
from echomen_hf.data.tracings import polygon_mask
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.simulation import (
    SimulatedFrames,
    SimulatedMasks,
    SimulatedTrainingClips,
    SimulatedVideos,
    sample_echo_parameters,
    simulate_echo,
)


FRAMES = SimulatedFrames("wide", image_size=32)


def test_a_row_depends_on_seed_and_index_only():
    few, many = SimulatedVideos(3, seed=5), SimulatedVideos(1000, seed=5)
    assert [few[index] for index in range(3)] == [many[index] for index in range(3)]
    assert few[-1] == few[2]
    assert few[0] != SimulatedVideos(3, seed=6)[0]
    with pytest.raises(IndexError, match="no video 3 among 3"):
        few[3]


def test_rows_are_within_the_limits_and_long_enough_for_a_clip():
    for row in SimulatedVideos(200, seed=1):
        assert 25 <= row["fps"] <= 90
        assert 1.3 <= row["num_frames"] / row["fps"] < 2.0
        assert row["num_frames"] >= ClipSpec().span(row["fps"])
    rates = SimulatedVideos(200, seed=1, fps=(30.0, 30.0))["fps"]
    assert set(rates) == {30.0}


@pytest.mark.parametrize(
    ("distribution", "mean", "below_40"),
    [("uniform", 46.5, 0.416), ("echonet", 55.8, 0.127), ("categories", 45.6, 1 / 3)],
)
def test_the_distribution_of_ejection_fractions_is_the_one_asked_for(distribution, mean, below_40):
    column = np.array(SimulatedVideos(500, seed=2, distribution=distribution)["ejection_fraction"])
    assert column.mean() == pytest.approx(mean, abs=1.0)
    assert (column < 40).mean() == pytest.approx(below_40, abs=0.01)


def test_a_column_is_that_of_the_rows():
    videos = SimulatedVideos(5, seed=2)
    for name in videos.column_names:
        assert videos[name] == [row[name] for row in videos]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_videos": 0}, "num_videos must be at least 1"),
        ({"seconds": (0.3, 1.0)}, "seconds must be"),
        ({"fps": (50.0, 25.0)}, "fps must be"),
        ({"distribution": "normal"}, "unknown distribution"),
        ({"still_share": 1.5}, r"still_share lies between 0 and 1, got 1\.5"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SimulatedVideos(**{"num_videos": 4, **settings})


def test_reading_gives_the_clip_of_the_row():
    row = SimulatedVideos(1, seed=3)[0]
    echo = simulate_echo(
        np.random.default_rng(row["seed"]),
        row["ejection_fraction"],
        num_frames=row["num_frames"],
        fps=row["fps"],
        image_size=32,
        profile="wide",
    )
    assert np.array_equal(FRAMES.read(row), echo.frames)
    assert echo.ejection_fraction == pytest.approx(row["ejection_fraction"], abs=1e-6)


def test_a_few_frames_show_the_same_heart_as_the_whole_clip():
    row = SimulatedVideos(1, seed=3)[0]
    whole, some = FRAMES.read(row), FRAMES.read(row, np.array([0, 1, 7, 7, 20]))
    assert np.array_equal(some[2], some[3])
    # what the persistence takes from the frames in between and the compression are all that may differ
    assert np.abs(some.astype(float) - whole[[0, 1, 7, 7, 20]]).mean() < 4


def test_a_mirrored_video_shows_the_same_heart_the_other_way_round():
    row = SimulatedVideos(1, seed=3)[0]
    mirrored = SimulatedFrames("wide", image_size=32, mirrored_share=1.0).read(row)
    assert np.array_equal(mirrored, FRAMES.read(row)[:, :, ::-1])


def test_a_reversed_video_runs_backwards():
    row = SimulatedVideos(1, seed=3)[0]
    backwards = SimulatedFrames("wide", image_size=32, reversed_share=1.0)
    assert np.array_equal(backwards.read(row), FRAMES.read(row)[::-1])
    last = row["num_frames"] - 1
    assert np.array_equal(
        backwards.read(row, np.array([0, 4, 4])), FRAMES.read(row, np.array([last - 4, last]))[[1, 0, 0]]
    )


def test_a_share_of_the_videos_stands_still_and_ejects_nothing():
    moving, some = SimulatedVideos(400, seed=4), SimulatedVideos(400, seed=4, still_share=0.05)
    still = [index for index, is_still in enumerate(some["is_still"]) if is_still]
    assert len(still) == pytest.approx(20, abs=3)
    for index, (row, other) in enumerate(zip(some, moving, strict=True)):
        if index in still:
            assert row["ejection_fraction"] == 0
            assert row["file_name"] == f"{other['file_name']}-STILL"
        else:
            assert row == other
    pictures = [FRAMES.read(some[index]) for index in still[:3]]
    for index, frames in zip(still, pictures, strict=False):
        assert len(frames) == some[index]["num_frames"]
        assert np.array_equal(frames, np.repeat(frames[:1], len(frames), axis=0))
        assert np.array_equal(FRAMES.read(some[index], np.array([2, 9])), frames[:2])
        assert frames[0].std() > 5
    assert not np.array_equal(pictures[0][0], pictures[1][0])


def test_the_share_of_mirrored_videos_is_the_one_asked_for():
    some = SimulatedFrames("wide", image_size=32, mirrored_share=0.5)
    frame = np.array([3])
    turned = [
        not np.array_equal(some.read(row, frame), FRAMES.read(row, frame)) for row in SimulatedVideos(24, seed=4)
    ]
    assert 6 <= sum(turned) <= 18


def test_brightness_is_that_of_the_video_and_within_the_factor():
    bright = SimulatedFrames("wide", image_size=32, brightness_factor=2.0)
    factors = []
    for row in SimulatedVideos(12, seed=3):
        plain, changed = (source.read(row, np.arange(3)).astype(float) for source in (FRAMES, bright))
        inside = (plain > 40) & (changed < 250)
        ratio = changed[inside] / plain[inside]
        assert ratio == pytest.approx(np.full(len(ratio), np.median(ratio)), rel=0.03)
        factors.append(np.median(ratio))
    assert 0.5 <= min(factors) < 0.8
    assert 1.25 < max(factors) <= 2.0
    with pytest.raises(ValueError, match="brightness_factor must be at least 1"):
        SimulatedFrames(brightness_factor=0.5)


def test_vertical_detail_is_smoothed_by_the_share_and_no_other():
    smoothing = SimulatedFrames("wide", image_size=32, vertical_smoothing=0.7)
    kept = []
    for row in SimulatedVideos(12, seed=3):
        plain, smooth = (source.read(row, np.arange(3)).astype(float) for source in (FRAMES, smoothing))
        # The finest detail: what every second row has more than the mean of its neighbours.
        finest = [frames[:, 1:-1] - (frames[:, 2:] + frames[:, :-2]) / 2 for frames in (plain, smooth)]
        kept.append(np.square(finest[1]).mean() / np.square(finest[0]).mean())
        assert smooth.mean(axis=(0, 1)) == pytest.approx(plain.mean(axis=(0, 1)), abs=1)
    assert 0.3**2 < min(kept) < 0.5**2
    assert 0.8**2 < max(kept) <= 1


def test_a_share_beyond_all_is_refused():
    with pytest.raises(ValueError, match=r"reversed_share lies between 0 and 1, got 1\.5"):
        SimulatedFrames(reversed_share=1.5)


def test_a_row_of_a_file_cannot_be_simulated():
    with pytest.raises(ValueError, match=r"0XABC has no column 'seed'"):
        FRAMES.read({"file_name": "0XABC", "num_frames": 40})


def test_every_epoch_and_stage_shows_other_hearts_of_the_same_strength(tiny_processor):
    videos = SimulatedVideos(3, seed=1)
    stage_1, stage_2 = (SimulatedTrainingClips(videos, tiny_processor, seed=seed, crop_padding=0) for seed in (1, 2))
    first, other_stage = stage_1[0], stage_2[0]
    stage_1.set_epoch(1)
    second = stage_1[0]
    assert first["labels"] == second["labels"] == other_stage["labels"] == videos[0]["ejection_fraction"]
    for one, other in itertools.combinations((first, second, other_stage), 2):
        assert not np.array_equal(one["frames"].numpy(), other["frames"].numpy())
    stage_1.set_epoch(0)
    assert np.array_equal(stage_1[0]["frames"].numpy(), first["frames"].numpy())
    assert stage_1.ejection_fractions == videos["ejection_fraction"]
    assert isinstance(stage_1, TrainingClips)


def test_training_clips_pass_to_a_loader_process(tiny_processor):
    clips = SimulatedTrainingClips(SimulatedVideos(3, seed=1), tiny_processor)
    clips.set_epoch(4)
    copy = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(copy[1]["frames"].numpy(), clips[1]["frames"].numpy())


def test_evaluation_clips_are_the_same_every_time(tiny_processor):
    videos, frames = SimulatedVideos(2, seed=9), SimulatedFrames("held_out_vendor", image_size=32)
    first, second = (EvaluationClips(videos, tiny_processor, "center", frames) for _ in range(2))
    assert first.file_names == ["SIMULATED-9-0", "SIMULATED-9-1"]
    for index in range(2):
        assert np.array_equal(first[index]["frames"].numpy(), second[index]["frames"].numpy())


MASKED = {
    "mirrored_share": 1.0,
    "reversed_share": 1.0,
    "zoom_factor": 1.3,
    "brightness_factor": 1.5,
    "gamma_factor": 1.5,
    "vertical_smoothing": 0.7,
}


def test_masks_are_those_of_the_exact_outlines():
    row, indices = SimulatedVideos(1, seed=3)[0], np.array([0, 4, 9])
    rng = np.random.default_rng(row["seed"])
    parameters = sample_echo_parameters(rng, row["ejection_fraction"], row["num_frames"], row["fps"], "wide")
    echo = simulate_echo(rng, parameters=parameters, render=False, frames=indices)
    exact = np.stack([polygon_mask(outline, 112, 112) for outline in echo.outlines])
    masks = SimulatedMasks().read(row, indices)
    np.testing.assert_array_equal(masks, 255 * exact.astype(np.uint8))
    np.testing.assert_array_equal(SimulatedMasks(mirrored_share=1.0).read(row, indices), masks[:, :, ::-1])
    last = row["num_frames"] - 1 - indices[::-1]
    np.testing.assert_array_equal(SimulatedMasks(reversed_share=1.0).read(row, last), masks[::-1])


@pytest.mark.parametrize("whole_fan_share", [0.0, 1.0])
def test_masks_lie_where_the_cavity_is_shown(whole_fan_share):
    settings, indices = {**MASKED, "whole_fan_share": whole_fan_share}, np.array([3])
    contrasts, shifted = [], []
    for row in SimulatedVideos(6, seed=8):
        frames = SimulatedFrames(**settings).read(row, indices)[0].astype(float)
        inside = SimulatedMasks(**settings).read(row, indices)[0] > 127
        ring = binary_dilation(inside, iterations=8) & ~binary_dilation(inside, iterations=2)
        contrasts.append(frames[ring].mean() / (frames[inside].mean() + 1))
        moved = np.roll(frames, 14, axis=1)
        shifted.append(moved[ring].mean() / (moved[inside].mean() + 1))
    assert np.median(contrasts) > 2  # the blood is dark, the wall around it bright
    assert np.median(contrasts) > 1.5 * np.median(shifted)
