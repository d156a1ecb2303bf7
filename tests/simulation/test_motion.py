import numpy as np
import pytest

from echomen_hf.simulation import MotionParameters, sample_parameters
from echomen_hf.simulation.motion import CardiacMotion, simulate_cardiac_motion


def motion(seed: int = 0, num_frames: int = 200, fps: float = 50.0, **fixed) -> CardiacMotion:
    rng = np.random.default_rng(seed)
    return simulate_cardiac_motion(sample_parameters(MotionParameters, rng, **fixed), num_frames, fps, rng)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rhythm", ["sinus", "atrial_fibrillation", "premature_beats"])
def test_the_traced_frames_are_the_extremes_of_the_traced_beat(seed, rhythm):
    clip = motion(seed, rhythm=rhythm)
    assert clip.contraction[clip.end_diastolic_frame] == pytest.approx(0, abs=1e-12)
    assert clip.contraction[clip.end_systolic_frame] == pytest.approx(1, abs=1e-12)
    beat = clip.contraction[clip.end_diastolic_frame : clip.end_systolic_frame + 1]
    assert np.all(np.diff(beat) > 0)
    assert clip.contraction.min() >= -1e-12
    assert clip.contraction.max() <= 1.05


def test_beats_come_at_the_heart_rate():
    clip = motion(heart_rate=75.0, num_frames=300)
    assert np.diff(clip.beat_starts).mean() == pytest.approx(60 / 75 * 50, rel=0.05)


def test_atrial_fibrillation_is_irregular():
    def variation(rhythm: str) -> float:
        lengths = np.diff(motion(1, num_frames=1000, heart_rate=80.0, rhythm=rhythm).beat_starts)
        return float(lengths.std() / lengths.mean())

    assert variation("atrial_fibrillation") > 2 * variation("sinus")


def test_the_mitral_valve_is_shut_while_the_ventricle_ejects_and_opens_after():
    clip = motion(2, heart_rate=60.0)
    ejection = slice(clip.end_diastolic_frame + 3, clip.end_systolic_frame - 1)
    assert clip.mitral_opening[ejection].max() < 0.05
    assert clip.mitral_opening.max() > 0.8


def test_the_heart_empties_continuously():
    clip = motion(3)
    assert np.abs(np.diff(clip.contraction)).max() < 0.3


def test_a_clip_shorter_than_a_systole_is_refused():
    with pytest.raises(ValueError, match="cannot hold one systole"):
        motion(num_frames=12, heart_rate=60.0)


def test_pauses_make_some_beats_nearly_twice_as_long():
    lengths = np.diff(motion(4, num_frames=2000, heart_rate=70.0, beat_variation=0.0, rhythm="pauses").beat_starts)
    long = lengths > 1.5 * np.median(lengths)
    assert 0.05 < long.mean() < 0.4
    assert lengths[long] / np.median(lengths) == pytest.approx(1.9, rel=0.02)


def test_the_leading_side_is_ahead_in_systole_and_behind_in_diastole_and_at_one_with_the_other_at_the_extremes():
    clip = motion(2, heart_rate=60.0, dyssynchrony=0.6)
    diastole, systole = clip.end_diastolic_frame, clip.end_systolic_frame
    assert clip.lead[diastole] == pytest.approx(0, abs=1e-12)
    assert clip.lead[systole] == pytest.approx(0, abs=1e-12)
    assert (clip.lead[diastole + 2 : systole - 1] > 0).all()
    assert clip.lead[systole + 3] < 0
    assert not motion(2, heart_rate=60.0).lead.any()


def test_skew_moves_the_ejection_and_not_its_ends():
    early, late = (motion(2, heart_rate=60.0, systolic_skew=skew) for skew in (0.5, -0.5))
    middle = (early.end_diastolic_frame + early.end_systolic_frame) // 2
    assert early.contraction[middle] > late.contraction[middle] + 0.1
    for clip in (early, late):
        assert clip.contraction[clip.end_systolic_frame] == pytest.approx(1, abs=1e-12)


def test_the_sway_of_the_probe_moves_the_heart_slowly_and_not_at_the_traced_end_diastole():
    still, swaying = (motion(2, heart_rate=60.0, probe_sway=sway) for sway in (0.0, 6.0))
    difference = swaying.drift - still.drift
    assert difference[swaying.end_diastolic_frame] == pytest.approx(0, abs=1e-12)
    assert 1 < np.abs(difference).max() <= 12
    assert np.abs(np.diff(difference, axis=0)).max() < 0.3
