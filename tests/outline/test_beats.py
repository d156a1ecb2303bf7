import numpy as np
import pytest

from echomen_hf.outline.beats import Beat, find_beats
from echomen_hf.simulation.motion import MotionParameters, simulate_cardiac_motion
from echomen_hf.simulation.parameters import sample_parameters


FPS = 50.0


def beat(frames, systole, edv=100.0, esv=45.0):
    """Volumes of one beat that begins at end diastole; the ventricle fills in two waves."""
    time = np.arange(frames)
    down = np.where(time < systole, (1 - np.cos(np.pi * time / systole)) / 2, 1.0)
    rest = frames - systole
    fill = np.clip((time - systole) / (0.45 * rest), 0, 1)
    kick = np.clip((time - frames + 0.2 * rest) / (0.2 * rest), 0, 1)
    up = 0.7 * (1 - np.cos(np.pi * fill)) / 2 + 0.3 * (1 - np.cos(np.pi * kick)) / 2
    return edv - (edv - esv) * (down - np.where(time < systole, 0, up))


def test_regular_beats():
    curve = np.concatenate([beat(40, 15) for _ in range(4)])
    found = find_beats(curve, FPS)
    assert [each.es_frame for each in found] == pytest.approx([15, 55, 95, 135], abs=2)
    assert [each.ed_frame for each in found] == pytest.approx([0, 40, 80, 120], abs=2)
    assert [each.ejection_fraction for each in found] == pytest.approx([55] * 4, abs=1.5)


@pytest.mark.parametrize("fps", [20.0, 50.0, 90.0])
def test_irregular_beats_with_noise(fps):
    lengths = [0.9, 0.5, 1.3, 0.7, 0.6]
    depths = [40, 70, 35, 45, 50]  # a beat after a short one ejects less
    rng = np.random.default_rng(1)
    curve = np.concatenate(
        [beat(round(length * fps), round(0.3 * fps), esv=esv) for length, esv in zip(lengths, depths)]
    )
    starts = np.cumsum([0, *(round(length * fps) for length in lengths)])[:-1]
    found = find_beats(curve + rng.normal(0, 1, len(curve)), fps)
    assert len(found) == 5
    for each, start, esv in zip(found, starts, depths):
        assert abs(each.ed_frame - start) <= 0.06 * fps
        assert abs(each.es_frame - start - 0.3 * fps) <= 0.06 * fps
        assert each.ejection_fraction == pytest.approx(100 - esv, abs=3)


@pytest.mark.parametrize("rhythm", ["sinus", "atrial_fibrillation", "premature_beats", "pauses"])
def test_simulated_rhythms(rhythm):
    """End diastole and end systole within 60 ms for 90 % of the beats, and hardly a beat too many or too few."""
    rng = np.random.default_rng(3)
    early_or_late, missed, total, invented = [], 0, 0, 0
    for number in range(40):
        parameters = sample_parameters(MotionParameters, rng, rhythm=rhythm)
        fps = (25.0, 40.0, 50.0, 70.0)[number % 4]
        motion = simulate_cardiac_motion(parameters, int(3.5 * fps), fps, rng)
        contraction = motion.contraction
        curve = 120 * (1 - rng.uniform(0.2, 0.7) * contraction) + rng.normal(0, 1.2, len(contraction))
        found = find_beats(curve, fps)
        systoles = []
        for start, end in zip(motion.beat_starts[:-1], motion.beat_starts[1:]):
            first, last = int(np.ceil(max(start, 0))), int(min(end, len(contraction)))
            if last - first > 2:
                systoles.append((start, first + int(np.argmax(contraction[first:last]))))
        # Whole beats: from end diastole until the ventricle has begun to fill.
        for start, peak in systoles:
            if start < 0 or peak > len(contraction) - 0.15 * fps:
                continue
            total += 1
            near = [each for each in found if abs(each.es_frame - peak) < 0.15 * fps]
            missed += not near
            early_or_late += [(each.ed_frame - start, each.es_frame - peak) / np.array(fps) for each in near]
        invented += sum(all(abs(each.es_frame - peak) > 0.15 * fps for _, peak in systoles) for each in found)
    assert total > 90
    assert missed <= 0.02 * total
    assert invented <= 0.02 * total
    within = (np.abs(early_or_late) <= 0.06).mean(axis=0)
    assert within.min() >= 0.9


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (slice(20, 40), 0),  # filling only
        (slice(0, 13), 0),  # contraction only: it may go on
        (slice(6, 45), 0),  # begins within the contraction, ends in the next one
        (slice(38, 62), 1),
        (slice(30, 108), 2),
    ],
)
def test_a_clip_cut_within_a_beat_has_no_invented_beat(cut, expected):
    curve = np.concatenate([beat(40, 15) for _ in range(4)])
    found = find_beats(curve[cut], FPS)
    assert len(found) == expected
    for each in found:
        assert each.ejection_fraction == pytest.approx(55, abs=2)


def test_no_beats_in_what_does_not_beat():
    rng = np.random.default_rng(0)
    assert find_beats(np.full(100, 80.0), FPS) == ()
    assert find_beats(np.full(100, np.nan), FPS) == ()
    assert find_beats(np.array([100.0, 50.0, 100.0]), FPS) == ()
    for _ in range(20):
        assert find_beats(80 + rng.normal(0, 1.5, 150), FPS) == ()
    assert find_beats(np.linspace(100, 50, 100), FPS) == ()


def test_weak_hearts_beat_too():
    curve = np.concatenate([beat(40, 15, esv=93) for _ in range(4)])
    found = find_beats(curve + np.random.default_rng(0).normal(0, 0.7, len(curve)), FPS)
    assert len(found) == 4
    assert np.mean([each.ejection_fraction for each in found]) == pytest.approx(7, abs=1)


def test_a_single_small_change_is_no_beat_but_a_large_one_is():
    rest = np.full(45, 100.0)
    small, large = (np.concatenate([rest, beat(40, 15, esv=esv), rest]) for esv in (94, 60))
    assert find_beats(small, FPS) == ()
    assert len(find_beats(large, FPS)) == 1


def test_a_gap_divides_the_curve():
    curve = np.concatenate([beat(40, 15) for _ in range(4)])
    curve[50:60] = np.nan  # around the second end systole
    found = find_beats(curve, FPS)
    assert [each.es_frame for each in found] == pytest.approx([15, 95, 135], abs=2)


def test_the_ejection_fraction_of_a_beat():
    assert Beat(0, 10, 120.0, 48.0).ejection_fraction == pytest.approx(60)
