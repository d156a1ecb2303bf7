import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from benchmarks.simulation_realism import cavity_mask
from echomen_hf.data.tracings import polygon_mask
from echomen_hf.simulation import EchoParameters, disk_volume, ejection_fraction, sample_echo_parameters, simulate_echo


def clear_view(seed: int, target: float, num_frames: int = 40) -> EchoParameters:
    """Parameters of a patient with even walls and no artefacts, in whom the cavity can be measured on the image."""
    parameters = sample_echo_parameters(np.random.default_rng(seed), target, num_frames, 50.0)
    tissue = dataclasses.replace(
        parameters.tissue,
        septum_level=3.0,
        lateral_wall_level=3.0,
        apex_level=3.0,
        patchiness=0.5,
        blood_level=-50.0,
        papillary_level=-50.0,
    )
    imaging = dataclasses.replace(
        parameters.imaging,
        shading=0.2,
        streaks=0.2,
        lateral_dropout=0.0,
        attenuation=0.0,
        haze=-50.0,
        noise=-50.0,
        compounding=0.9,
        persistence=0.0,
        near_field_clutter=-40.0,
    )
    return dataclasses.replace(parameters, tissue=tissue, imaging=imaging)


def dark_area(frame: np.ndarray, around: np.ndarray) -> int:
    smooth = gaussian_filter(frame.astype(float), 0.7)
    return int((smooth[around] < 70).sum())


def test_the_same_seed_gives_the_same_bytes():
    first, second = (simulate_echo(5, num_frames=34) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.tracings, second.tracings)
    assert not np.array_equal(first.frames, simulate_echo(6, num_frames=34).frames)


def test_frames_are_grayscale_video_of_the_size_asked_for():
    echo = simulate_echo(1, num_frames=30, image_size=64)
    assert echo.frames.shape == (30, 64, 64)
    assert echo.frames.dtype == np.uint8
    assert echo.frames[:, :3, :3].max() == 0  # corner
    assert echo.frames.max() > 150


@pytest.mark.parametrize("target", [12.0, 40.0, 61.25])
def test_the_ejection_fraction_is_the_one_asked_for_and_the_one_of_the_tracings(target):
    echo = simulate_echo(2, target, num_frames=60, render=False)
    edv, esv = (disk_volume(tracing, echo.mm_per_pixel) for tracing in echo.tracings)
    assert echo.ejection_fraction == pytest.approx(target, abs=1e-6)
    assert (echo.edv, echo.esv) == (edv, esv)
    assert echo.ejection_fraction == ejection_fraction(edv, esv)


def test_measurements_do_not_need_rendering():
    rendered, measured = (simulate_echo(3, 50.0, num_frames=30, render=render) for render in (True, False))
    assert len(measured.frames) == 0
    assert np.array_equal(rendered.tracings, measured.tracings)
    assert rendered.ejection_fraction == measured.ejection_fraction


@pytest.mark.parametrize("seed", range(4))
def test_the_dark_cavity_in_the_image_has_the_traced_area(seed):
    echo = simulate_echo(seed, parameters=clear_view(seed, 62.0))
    diastole, systole = (cavity_mask(tracing, 112) for tracing in echo.tracings)
    # the valve and the atria lie below the cavity: look at its apical two thirds only
    apex, base = echo.tracings[0, 0, 1], echo.tracings[0, 0, 3]
    above = np.arange(112)[:, None] < apex + 0.66 * (base - apex)
    around = binary_dilation(diastole, iterations=2) & above
    end_diastolic = dark_area(echo.frames[echo.end_diastolic_frame], around)
    end_systolic = dark_area(echo.frames[echo.end_systolic_frame], around)
    assert end_diastolic == pytest.approx((diastole & around).sum(), rel=0.2)
    assert end_systolic == pytest.approx((systole & around).sum(), rel=0.3)


def test_the_outline_is_the_traced_one_at_both_ends_of_the_beat():
    echo = simulate_echo(11, 55.0, num_frames=60, render=False, profile="wide")
    assert echo.outlines.shape == (60, 97, 2)
    for tracing, frame in zip(echo.tracings, (echo.end_diastolic_frame, echo.end_systolic_frame), strict=True):
        outline = np.concatenate([echo.outlines[frame], echo.outlines[frame, :1]])
        apex, annulus = tracing[0, :2], tracing[0, 2:]
        along = (annulus - apex) / np.hypot(*(annulus - apex))
        # every chord ends on the outline
        for end in (*tracing[1:, :2], *tracing[1:, 2:]):
            steps = np.diff(outline, axis=0)
            share = np.clip(((end - outline[:-1]) * steps).sum(1) / (steps**2).sum(1), 0, 1)
            assert np.hypot(*(outline[:-1] + share[:, None] * steps - end).T).min() < 0.1
        level = (outline - apex) @ along / np.hypot(*(annulus - apex))
        assert (level.min(), level.max()) == pytest.approx((0, 1), abs=1e-3)


@pytest.mark.parametrize("seed", [21, 22])
def test_the_outline_encloses_the_dark_cavity_in_every_frame(seed):
    parameters = clear_view(seed, 60.0)
    anatomy = dataclasses.replace(parameters.anatomy, apex_depth=30.0)
    # a dyssynchronous heart that moves on the screen, on a machine that repeats frames
    motion = dataclasses.replace(parameters.motion, dyssynchrony=0.7, probe_sway=6.0)
    display = dataclasses.replace(parameters.display, acquired_share=0.5)
    echo = simulate_echo(
        seed, parameters=dataclasses.replace(parameters, anatomy=anatomy, motion=motion, display=display)
    )
    for frame, outline in list(zip(echo.frames, echo.outlines, strict=True))[::5]:
        smooth = gaussian_filter(frame.astype(float), 0.7)
        mask = polygon_mask(outline, 112, 112)
        centre = outline.mean(axis=0)
        wall = polygon_mask(centre + 1.12 * (outline - centre), 112, 112) & ~mask
        inner = polygon_mask(centre + 0.85 * (outline - centre), 112, 112)
        assert smooth[inner].mean() < 0.35 * smooth[wall].mean()
    assert np.array_equal(echo.outlines[::2][1:15], echo.outlines[1::2][1:15])


def test_some_frames_have_the_outlines_that_they_have_in_the_whole_clip():
    whole = simulate_echo(13, num_frames=50, render=False)
    some = simulate_echo(13, num_frames=50, render=False, frames=np.array([3, 17, 40]))
    assert np.array_equal(some.outlines, whole.outlines[[3, 17, 40]])


def test_the_cavity_is_darker_than_the_wall_in_ordinary_clips():
    for seed in range(4):
        echo = simulate_echo(seed, num_frames=32)
        for tracing, frame in zip(echo.tracings, (echo.end_diastolic_frame, echo.end_systolic_frame), strict=True):
            inside = cavity_mask(tracing, 112)
            ring = binary_dilation(inside, iterations=5) & ~binary_dilation(inside)
            assert echo.frames[frame][inside].mean() < 0.5 * echo.frames[frame][ring].mean()


def test_only_motion_tells_the_ejection_fraction():
    weak, strong = (simulate_echo(11, target, num_frames=50) for target in (25.0, 70.0))
    for name in ("anatomy", "motion", "tissue", "imaging", "depth", "fps", "num_frames"):
        assert getattr(weak.parameters, name) == getattr(strong.parameters, name)
    assert weak.edv == pytest.approx(strong.edv)
    # at end diastole both hearts look the same, and between end diastole and end systole the strong one changes more
    diastole, systole = weak.end_diastolic_frame, weak.end_systolic_frame
    weak_frames, strong_frames = weak.frames.astype(float), strong.frames.astype(float)
    assert np.abs(weak_frames[diastole] - strong_frames[diastole]).mean() < 6
    weak_change, strong_change = (np.abs(f[diastole] - f[systole]).mean() for f in (weak_frames, strong_frames))
    assert strong_change > 1.2 * weak_change


def test_no_parameter_of_a_clip_is_correlated_with_its_ejection_fraction():
    rng = np.random.default_rng(0)
    targets = rng.uniform(10, 80, 600)
    rows = []
    for index, target in enumerate(targets):
        clip = sample_echo_parameters(np.random.default_rng([1, index]), float(target), 150, 50.0)
        rows.append(
            [
                clip.anatomy.end_diastolic_volume,
                clip.anatomy.longitudinal_share,
                clip.motion.heart_rate,
                clip.imaging.gain,
                clip.imaging.dynamic_range,
                clip.tissue.septum_level,
                clip.depth,
            ]
        )
    correlations = [np.corrcoef(targets, column)[0, 1] for column in np.array(rows).T]
    assert np.abs(correlations).max() < 0.13  # 3 standard errors at 600 clips


def test_a_short_clip_holds_end_diastole_and_end_systole():
    for seed in range(10):
        echo = simulate_echo(seed, 60.0, num_frames=28, render=False)
        assert 0 <= echo.end_diastolic_frame < echo.end_systolic_frame < 28
        assert echo.contraction[echo.end_diastolic_frame] == pytest.approx(0, abs=1e-12)
        assert echo.contraction[echo.end_systolic_frame] == pytest.approx(1, abs=1e-12)


def test_an_impossible_ejection_fraction_is_refused():
    with pytest.raises(ValueError, match="ejection_fraction must be within"):
        simulate_echo(0, 120.0)


def test_a_fixed_parameter_that_does_not_exist_is_refused():
    from echomen_hf.simulation import MotionParameters, sample_parameters

    with pytest.raises(TypeError, match="hart_rate"):
        sample_parameters(MotionParameters, np.random.default_rng(0), hart_rate=60.0)
