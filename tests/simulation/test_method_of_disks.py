import numpy as np
import pytest

from echomen_hf.simulation import disk_volume, ejection_fraction


def cylinder(diameter: float, length: float, num_disks: int = 20) -> np.ndarray:
    heights = length * (np.arange(num_disks) + 0.5) / num_disks
    chords = np.stack([np.zeros(num_disks), heights, np.full(num_disks, diameter), heights], axis=1)
    return np.concatenate([[[diameter / 2, 0, diameter / 2, length]], chords])


def test_a_cylinder_has_the_volume_of_a_cylinder():
    # pi / 4 * 4^2 * 10 = 125.66 mm^3
    assert disk_volume(cylinder(4, 10)) == pytest.approx(0.1256637061)


def test_volume_grows_with_the_cube_of_the_pixel_size():
    assert disk_volume(cylinder(4, 10), mm_per_pixel=2) == pytest.approx(8 * disk_volume(cylinder(4, 10)))


def test_volume_does_not_depend_on_where_the_ventricle_lies():
    tracing = cylinder(4, 10)
    angle = 0.4
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (tracing.reshape(-1, 2) @ rotation.T + [30, -7]).reshape(-1, 4)
    assert disk_volume(moved) == pytest.approx(disk_volume(tracing))


def test_a_sphere_is_approached_with_many_disks():
    heights = (np.arange(500) + 0.5) / 500
    radius = np.sqrt(heights * (1 - heights))
    chords = np.stack([-radius, heights, radius, heights], axis=1)
    assert disk_volume(np.concatenate([[[0, 0, 0, 1]], chords])) == pytest.approx(np.pi / 6 / 1000, rel=1e-4)


@pytest.mark.parametrize("shape", [(21,), (1, 4), (21, 3)])
def test_something_that_is_no_tracing_is_refused(shape):
    with pytest.raises(ValueError, match="long axis first"):
        disk_volume(np.zeros(shape))


def test_ejection_fraction_in_percent():
    assert ejection_fraction(120, 48) == pytest.approx(60)
