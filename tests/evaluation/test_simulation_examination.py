"""Measuring a model on simulated hearts."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.evaluation import simulation_examination
from echomen_hf.evaluation.simulation_examination import (
    EXPORT,
    PROFILE_TITLES,
    READER_ERROR,
    _readings,
    accuracy_section,
    calibrate_on_simulation,
    calibration_frames,
    coverage_section,
    echonet_weighted,
    examination_videos,
    examine_on_simulation,
    expert_gain,
    experts_section,
    motion_section,
    simulated_frames,
)
from echomen_hf.labels import HEART_FAILURE_CATEGORIES
from helpers.tiny_config import make_tiny_config


@pytest.fixture(scope="module")
def examination():
    torch.manual_seed(0)
    model = EchoMENModel(make_tiny_config()).eval()
    processor = EchoMENVideoProcessor.for_model(model.config)
    calibrate_on_simulation(model, processor, num_videos=4, progress=False)
    return examine_on_simulation(
        model, processor, num_videos=4, num_motion_videos=2, bootstrap_samples=10, progress=False
    )


def test_each_category_is_a_third_and_profiles_share_their_hearts(examination):
    for name in ("constant_guess", *PROFILE_TITLES):
        metrics = examination["accuracy"][name]
        counts = [metrics[f"n_{category}"] for category in HEART_FAILURE_CATEGORIES]
        assert sum(counts) == 4
        assert counts == pytest.approx([4 / 3] * 3, abs=1)
    wide, other = examination["accuracy"]["wide"], examination["accuracy"]["held_out_vendor"]
    assert wide["mae"] != other["mae"]
    assert examination["held_out_ratio"] == pytest.approx(other["mae"] / wide["mae"])
    # An untrained model says nothing: its intervals must be as wide as the categories, and hold everything.
    assert examination["intervals"]["wide"]["all"]["coverage"] == 1.0


def test_calibration_shows_all_ways_and_machines_of_training_as_training_changes_them(tiny_processor):
    video = examination_videos(1, seed=1)[0]
    changes = {"vertical_smoothing": 1.0, "brightness_factor": 2.0}
    changed, unchanged = calibration_frames(tiny_processor, changes), calibration_frames(tiny_processor, None)
    for way in PROFILE_TITLES:
        source, row = simulated_frames(tiny_processor, way), {**video, "way": way}
        shown, expected = changed.read(row, np.array([3])), source.read(video, np.array([3]))
        np.testing.assert_array_equal(unchanged.read(row, np.array([3])), expected)
        if way == "wide":
            assert not np.array_equal(shown, expected)
            expected = dataclasses.replace(source, **changes).read(video, np.array([3]))
        np.testing.assert_array_equal(shown, expected)


def test_intervals_and_gate_are_calibrated_on_two_ways_each(tiny_processor, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        simulation_examination,
        "calibrate_model",
        lambda model, processor, videos, **kwargs: seen.update(kwargs, videos=videos),
    )
    calibrate_on_simulation(None, tiny_processor, num_videos=4)

    def shown(mark):
        return [
            (row["way"], row["seed"][-1])
            for row, is_counted in zip(seen["videos"], seen[mark], strict=True)
            if is_counted
        ]

    errors, usual = shown("error_groups"), shown("has_usual_embedding")
    assert [group in (None, row["way"]) for row, group in zip(seen["videos"], seen["error_groups"])] == [True] * 12
    assert sorted(errors) == [(way, heart) for way in ("export", "held_out_vendor") for heart in range(4)]
    assert sorted(usual) == [(way, heart) for way in ("export", "wide") for heart in range(4)]
    for half in (usual[::2], usual[1::2]):  # what `embedding_distribution` compares
        assert sorted(way for way, _ in half) == ["export", "export", "wide", "wide"]
    readings = dict(zip([row["file_name"] for row in seen["videos"]], seen["readings"], strict=True))
    assert [readings[row["file_name"]] for row in seen["videos"]] == seen["readings"]


def test_an_export_is_shown_as_the_finder_cuts_it_out(tiny_processor):
    row = examination_videos(1, seed=2)[0]
    source = simulated_frames(tiny_processor, EXPORT)
    frames = source.read(row, np.array([0, 5]))
    size = tiny_processor.crop_size["height"]
    assert (frames.shape, frames.dtype) == ((2, size, size), np.uint8)
    np.testing.assert_array_equal(frames, source.read(row)[[0, 5]])
    assert (frames[:, 0, [0, -1]] < 10).all()  # beside the apex


def test_gain_of_an_aggregator():
    def prediction(ejection_fraction, experts, weights):
        parts = {"expert_predictions": np.array(experts), "expert_weights": np.array(weights)}
        return SimpleNamespace(ejection_fraction=ejection_fraction, regression=50.0, **parts)

    predictions = [
        prediction(31.0, [32.0, 40.0], [0.9, 0.1]),
        prediction(46.0, [48.0, 44.0], [0.5, 0.5]),
        prediction(58.0, [54.0, 60.0], [0.1, 0.9]),
    ]
    found = expert_gain(predictions, np.array([30.0, 45.0, 60.0]))
    assert found["balanced_mae"] == pytest.approx((1 + 1 + 2) / 3)
    assert found["of_mean"] == pytest.approx((6 + 1 + 3) / 3)
    assert found["of_expert"] == pytest.approx([(2 + 3 + 6) / 3, (10 + 1 + 0) / 3])
    assert found["of_regression_head"] == pytest.approx((20 + 5 + 10) / 3)
    assert found["mean_weight"] == pytest.approx([0.5, 0.5])
    assert found["weight_sd"] == pytest.approx([np.std([0.9, 0.5, 0.1])] * 2)


def test_readings_have_the_error_of_a_reader():
    videos = examination_videos(2000, seed=1)
    errors = np.array(_readings(videos)) - videos["ejection_fraction"]
    assert errors.std() == pytest.approx(READER_ERROR, rel=0.05)
    assert abs(errors.mean()) < 0.3
    assert _readings(videos) == _readings(videos)
    assert not np.allclose(
        errors, np.array(_readings(other := examination_videos(2000, 2))) - other["ejection_fraction"]
    )


def test_a_still_clip_and_every_change_are_measured(examination):
    motion = examination["motion"]
    assert set(motion) == {
        *("still", "backwards", "mirrored", "half_frame_rate"),
        *("brightness_0.6", "brightness_1.6"),
    }
    assert all(values["p90"] >= 0 and values["mean"] >= 0 for name, values in motion.items() if name != "still")
    assert motion["brightness_1.6"]["mean"] > 0


def test_errors_are_weighed_as_echonet_dynamic_has_them():
    metrics = {"mae_hfref": 10.0, "mae_hfmref": 0.0, "mae_hfpef": 0.0}
    assert echonet_weighted(metrics) == pytest.approx(10 * 0.127, abs=0.01)
    assert echonet_weighted(dict.fromkeys(metrics, 3.0)) == pytest.approx(3.0)


def test_tables_hold_the_numbers(examination):
    text = accuracy_section(examination)
    assert f"{examination['accuracy']['wide']['balanced_mae']:.2f}" in text
    assert f"is {examination['held_out_ratio']:.2f} times" in text
    assert f" {examination['slope']['wide']:.2f} |" in text
    assert f"{examination['accuracy']['export']['bias_hfref']:+.1f}" in text
    assert f"{examination['experts']['export']['of_mean']:.2f}" in experts_section(examination)
    assert "100.0%" in coverage_section(examination)
    text = motion_section(examination)
    assert f"{examination['motion']['mirrored']['mean']:.2f}" in text
    assert f"EF of {examination['motion']['still']['mean']:.1f} %" in text
