import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from echomen_hf.simulation import (
    PROFILES,
    AnatomyParameters,
    DisplayParameters,
    ImagingParameters,
    MotionParameters,
    SimulatedVideos,
    TissueParameters,
    get_profile,
    sample_echo_parameters,
    sample_parameters,
    simulate_echo,
)


GROUPS = {
    "anatomy": AnatomyParameters,
    "motion": MotionParameters,
    "tissue": TissueParameters,
    "imaging": ImagingParameters,
    "display": DisplayParameters,
}
# Mean grey level of the 4 x 4 blocks of three frames, measured on the simulator that made the demo's figures.
REFERENCE_BLOCKS = [
    [[0.0, 16.79, 15.34, 0.5], [9.57, 50.29, 4.54, 17.3], [59.8, 78.7, 22.62, 51.98], [36.64, 16.22, 20.08, 21.56]],
    [[0.0, 16.39, 18.3, 0.5], [10.48, 64.37, 9.63, 15.69], [69.59, 63.36, 49.6, 49.71], [24.56, 13.84, 20.47, 19.9]],
    [[0.0, 15.39, 17.29, 0.5], [8.68, 54.58, 5.77, 17.41], [62.71, 78.18, 28.08, 54.32], [35.2, 17.38, 21.2, 23.41]],
]


def test_the_reference_profile_gives_the_clips_that_the_demo_was_measured_on():
    echo = simulate_echo([3, 4], num_frames=30, image_size=64)
    blocks = echo.frames[[0, 11, 29]].astype(float).reshape(3, 4, 16, 4, 16).mean(axis=(2, 4))
    assert blocks == pytest.approx(np.array(REFERENCE_BLOCKS), abs=0.05)
    named = simulate_echo([3, 4], num_frames=30, image_size=64, profile="reference")
    assert np.array_equal(echo.frames, named.frames)


@pytest.mark.parametrize("name", PROFILES)
def test_every_value_drawn_lies_in_the_range_of_the_profile(name):
    profile = get_profile(name)
    for index in range(20):
        clip = sample_echo_parameters(np.random.default_rng([2, index]), 50.0, 80, 50.0, name)
        for group, cls in GROUPS.items():
            values, ranges = dataclasses.asdict(getattr(clip, group)), getattr(profile, group)
            assert set(ranges) <= set(values)
            drawn = set(ranges) - {"hypokinesia", "heart_rate"}  # absent in hearts without a defect; raised to fit
            for field in drawn:
                assert ranges[field][0] <= values[field] <= ranges[field][-1], (cls, field)


def test_the_held_out_vendor_has_nothing_of_the_machines_trained_on():
    wide, vendor = get_profile("wide"), get_profile("held_out_vendor")
    assert vendor.anatomy == wide.anatomy
    assert vendor.motion == wide.motion
    changed = set()
    for group in ("imaging", "display"):
        ranges, others = getattr(wide, group), getattr(vendor, group)
        for field in ranges:
            if ranges[field] != others[field]:
                changed.add(field)
                assert others[field][0] > ranges[field][-1] or others[field][-1] < ranges[field][0], field
    assert {"lateral_resolution", "carrier", "compounding", "sector_half_angle", "quality", "blur", "toe"} <= changed
    assert "none" not in vendor.codec_shares


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown simulation profile 'narrow': choose one of reference, wide"):
        simulate_echo(0, profile="narrow")


def test_a_range_of_a_parameter_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="MotionParameters has no parameter named hart_rate"):
        sample_parameters(MotionParameters, np.random.default_rng(0), {"hart_rate": (40.0, 140.0)})


def test_fixing_one_value_leaves_the_other_values_of_a_profile_as_they_were():
    ranges = get_profile("wide").motion
    free, fixed = (
        sample_parameters(MotionParameters, np.random.default_rng(3), ranges, **kwargs)
        for kwargs in ({}, {"heart_rate": 61.0})
    )
    assert fixed == dataclasses.replace(free, heart_rate=61.0)


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """What can be known about 400 clips without looking at them."""
    rows = []
    videos = SimulatedVideos(400, seed=4)
    for row in videos:
        echo = simulate_echo(
            np.random.default_rng(row["seed"]),
            row["ejection_fraction"],
            num_frames=row["num_frames"],
            fps=row["fps"],
            profile="wide",
            render=False,
        )
        axis = echo.tracings[0, 0, 2:] - echo.tracings[0, 0, :2]
        rows.append(
            {
                "target": row["ejection_fraction"],
                "ejection_fraction": echo.ejection_fraction,
                "number of frames": row["num_frames"],
                "frame rate": row["fps"],
                "end-diastolic volume": echo.edv,
                "long axis in pixels": float(np.hypot(*axis)),
                "heart rate": echo.parameters.motion.heart_rate,
                "depth": echo.parameters.depth,
                "end-diastolic frame": echo.end_diastolic_frame,
                "median grey level": echo.parameters.imaging.median_level,
                "gain": echo.parameters.imaging.gain,
                "wall thickness": echo.parameters.anatomy.septal_thickness,
                "breathing": echo.parameters.motion.breathing_amplitude,
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_the_label_known_before_the_clip_is_drawn_is_that_of_its_tracings(drawn):
    assert drawn["ejection_fraction"] == pytest.approx(drawn["target"], abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "number of frames",
        "frame rate",
        "end-diastolic volume",
        "long axis in pixels",
        "heart rate",
        "depth",
        "end-diastolic frame",
        "median grey level",
        "gain",
        "wall thickness",
        "breathing",
    ],
)
def test_nothing_but_motion_tells_the_ejection_fraction(drawn, name):
    assert abs(spearmanr(drawn["target"], drawn[name])[0]) < 0.1


def test_brightness_and_contrast_do_not_tell_the_ejection_fraction():
    seen = []
    for index in range(40):
        # the same patient and machine with a weak and a strong heart, at one moment of a small picture
        rngs, frames = ([np.random.default_rng([8, index]) for _ in range(2)], np.array([index]))
        for rng, target in zip(rngs, (20.0, 70.0), strict=True):
            echo = simulate_echo(rng, target, num_frames=50, image_size=48, profile="wide", frames=frames)
            seen.append([echo.frames.mean(), echo.frames.std()])
    weak, strong = np.array(seen).reshape(40, 2, 2).transpose(1, 2, 0)  # (values, clips) each
    # a difference of 0.2 standard deviations between two equal groups is a correlation of 0.1
    effect = np.abs((strong - weak).mean(axis=1)) / weak.std(axis=1)
    assert effect.max() < 0.2


def test_weak_hearts_are_larger_if_size_is_coupled():
    def volume(target: float, couple_size: float) -> float:
        rng = np.random.default_rng(0)
        clip = sample_echo_parameters(rng, target, 80, 50.0, "wide", couple_size=couple_size)
        return clip.anatomy.end_diastolic_volume

    assert volume(20, 0.5) / volume(60, 0.5) == pytest.approx(np.exp(0.4))
    assert volume(20, 0.0) == volume(60, 0.0)


def test_a_wide_clip_of_every_rhythm_frame_rate_and_strength_can_be_made():
    rhythms = set()
    for index in range(60):
        rng = np.random.default_rng([6, index])
        target, fps = rng.uniform(5, 90), rng.uniform(25, 60)
        echo = simulate_echo(rng, target, num_frames=40, fps=fps, profile="wide", render=False)
        rhythms.add(echo.parameters.motion.rhythm)
        assert np.isfinite(echo.tracings).all()
        assert np.isfinite(echo.contraction).all()
    assert rhythms == {"sinus", "atrial_fibrillation", "premature_beats", "pauses"}
