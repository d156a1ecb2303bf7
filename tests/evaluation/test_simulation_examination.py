"""Measuring a model on simulated hearts."""

import pytest

from echomen_hf.evaluation.simulation_examination import (
    accuracy_section,
    calibrate_on_simulation,
    coverage_section,
    echonet_weighted,
    examine_on_simulation,
    motion_section,
)
from echomen_hf.labels import HEART_FAILURE_CATEGORIES


@pytest.fixture
def examination(tiny_model, tiny_processor):
    calibrate_on_simulation(tiny_model, tiny_processor, num_videos=9, progress=False)
    return examine_on_simulation(
        tiny_model, tiny_processor, num_videos=9, num_motion_videos=2, bootstrap_samples=10, progress=False
    )


def test_each_category_is_a_third_and_profiles_share_their_hearts(examination):
    for name in ("wide", "held_out_vendor", "constant_guess"):
        metrics = examination["accuracy"][name]
        counts = [metrics[f"n_{category}"] for category in HEART_FAILURE_CATEGORIES]
        assert sum(counts) == 9
        assert counts == pytest.approx([3, 3, 3], abs=1)
    wide, other = examination["accuracy"]["wide"], examination["accuracy"]["held_out_vendor"]
    assert wide["mae"] != other["mae"]
    assert examination["held_out_ratio"] == pytest.approx(other["mae"] / wide["mae"])
    # An untrained model says nothing: its intervals must be as wide as the categories, and hold everything.
    assert examination["intervals"]["wide"]["all"]["coverage"] == 1.0


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
    assert "100.0%" in coverage_section(examination)
    text = motion_section(examination)
    assert f"{examination['motion']['mirrored']['mean']:.2f}" in text
    assert f"EF of {examination['motion']['still']['mean']:.1f} %" in text
