import dataclasses

import numpy as np
import pytest

from echomen_hf.simulation import (
    AnatomyParameters,
    FourChamberHeart,
    disk_volume,
    ejection_fraction,
    sample_parameters,
)


def sampled_heart(seed: int, target: float) -> FourChamberHeart:
    return FourChamberHeart(sample_parameters(AnatomyParameters, np.random.default_rng(seed)), target)


def plain_heart(target: float, **changes: float) -> FourChamberHeart:
    parameters = dataclasses.replace(AnatomyParameters(), hypokinesia=0.0, **changes)
    return FourChamberHeart(parameters, target)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("target", [6.9, 30.0, 55.8, 97.0])
def test_the_method_of_disks_gives_exactly_the_target(seed, target):
    heart = sampled_heart(seed, target)
    edv, esv = disk_volume(heart.tracing(systolic=False)), disk_volume(heart.tracing(systolic=True))
    assert edv == pytest.approx(heart.parameters.end_diastolic_volume, rel=1e-9)
    assert ejection_fraction(edv, esv) == pytest.approx(target, abs=1e-8)


@pytest.mark.parametrize("target", [0.0, 99.5, 180.0])
def test_an_impossible_ejection_fraction_is_refused(target):
    with pytest.raises(ValueError, match=r"within \[1, 99\] percent"):
        plain_heart(target)


def test_the_chords_end_on_the_drawn_endocardium():
    heart = sampled_heart(3, 60)
    for systolic, wall in ((False, heart.lv_endocardium.end_diastole), (True, heart.lv_endocardium.end_systole)):
        ends = heart.tracing(systolic=systolic)[1:].reshape(-1, 2)
        distance = np.linalg.norm(ends[:, None] - wall[None], axis=2).min(axis=1)
        assert distance.max() < 2.0  # half the largest spacing of the outline, in mm


def test_the_wall_thickens_in_systole_and_more_in_a_stronger_heart():
    def thickening(target: float) -> float:
        ventricle = plain_heart(target).left_ventricle
        middle = np.array([-0.7, 0.7])
        return float(
            (ventricle.wall_thickness(middle, systolic=True) / ventricle.wall_thickness(middle, systolic=False)).mean()
        )

    assert 1.0 < thickening(20) < thickening(40) < thickening(65)


def test_the_base_descends_and_the_apex_stays():
    heart = plain_heart(60, apex_descent=1.0)
    annulus = heart.mitral_annulus.displacement.mean(axis=0)
    apex = heart.lv_endocardium.displacement[len(heart.wall_position) // 2]
    assert annulus[1] < -6  # towards the transducer, in mm
    assert np.linalg.norm(apex) < 0.25 * np.linalg.norm(annulus)


def test_a_weak_segment_moves_less_than_the_opposite_wall():
    heart = FourChamberHeart(
        dataclasses.replace(AnatomyParameters(), hypokinesia=0.7, hypokinesia_position=0.6, septal_excursion=1.0), 50
    )
    ventricle = heart.left_ventricle
    positions = np.array([-0.6, 0.6])
    before, after = (ventricle.half_widths(positions, ventricle.diameter, c) for c in (0.0, ventricle.contraction))
    septal, lateral = 1 - after / before
    assert lateral < 0.5 * septal


def test_the_chambers_lie_as_in_an_apical_four_chamber_view():
    heart = plain_heart(60, tilt=0.0)
    ventricle = heart.lv_endocardium.end_diastole
    assert heart.left_atrium.end_diastole[:, 1].mean() > ventricle[:, 1].max()  # atria below the annulus
    assert heart.rv_free_wall.end_diastole[:, 0].max() < ventricle[:, 0].min() + 5  # right ventricle on the left
    assert heart.right_atrium.end_diastole[:, 0].mean() < heart.left_atrium.end_diastole[:, 0].mean()
