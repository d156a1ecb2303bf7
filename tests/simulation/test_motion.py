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
