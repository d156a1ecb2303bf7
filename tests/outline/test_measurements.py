import numpy as np
import pytest

from echomen_hf.outline.measurements import clean_masks, measure_volumes, smooth_volumes, trace_disks
from echomen_hf.simulation import disk_volume


def ellipse(length, width, degrees, size, base=1.0):
    """Cut through an ellipsoid with these half axes; below `base` of the half length it is open."""
    rows, columns = np.mgrid[:size, :size]
    x, y = columns - size / 2 - 0.3, rows - size / 2 + 0.2
    down = np.array([-np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
    along, across = x * down[0] + y * down[1], x * down[1] - y * down[0]
    return ((along / length) ** 2 + (across / width) ** 2 <= 1) & (along <= base * length)


def truncated_volume(length, width, base):
    return np.pi * width**2 * length * (base - base**3 / 3 + 2 / 3) / 1000


@pytest.mark.parametrize("method", ["disks", "area_length"])
@pytest.mark.parametrize("degrees", [-60, -30, -13, 0, 7, 22, 45])
@pytest.mark.parametrize(("length", "width"), [(100, 57), (86, 32), (71, 50)])
def test_an_ellipsoid_has_its_volume_however_it_is_turned(length, width, degrees, method):
    volumes = measure_volumes(ellipse(length, width, degrees, 400)[None], method=method)
    assert volumes.volumes[0] == pytest.approx(4 / 3 * np.pi * length * width**2 / 1000, rel=0.01)
    assert volumes.elongation[0] == pytest.approx(4 * length / (np.pi * width), rel=0.02)


@pytest.mark.parametrize("degrees", [-30, 0, 13, 40])
@pytest.mark.parametrize("base", [0.4, 0.7])
def test_an_ellipsoid_open_at_the_mitral_plane(degrees, base):
    volumes = measure_volumes(ellipse(100, 57, degrees, 400, base)[None])
    assert volumes.volumes[0] == pytest.approx(truncated_volume(100, 57, base), rel=0.01)


@pytest.mark.parametrize("degrees", [-30, -13, 0, 7, 22])
def test_small_pictures_cost_little_precision(degrees):
    volumes = measure_volumes(ellipse(28, 16, degrees, 112, 0.6)[None])
    assert volumes.volumes[0] == pytest.approx(truncated_volume(28, 16, 0.6), rel=0.02)


def test_the_long_axis_runs_from_the_apex_to_the_middle_of_the_mitral_plane():
    tracing = trace_disks(ellipse(100, 57, 20, 400, 0.6))
    down = np.array([-np.sin(np.radians(20)), np.cos(np.radians(20))])
    centre = np.array([200.3, 199.8])
    assert tracing.shape == (21, 4)
    np.testing.assert_allclose(tracing[0, :2], centre - 100 * down, atol=4)
    np.testing.assert_allclose(tracing[0, 2:], centre + 60 * down, atol=2)
    assert disk_volume(tracing) == pytest.approx(measure_volumes(ellipse(100, 57, 20, 400, 0.6)[None]).volumes[0])


def test_units():
    small, large = ellipse(40, 24, 10, 200, 0.6)[None], ellipse(80, 48, 10, 400, 0.6)[None]
    relative = measure_volumes(small)
    assert (relative.unit, measure_volumes(small, 0.5).unit) == ("1000 px^3", "mL")
    assert measure_volumes(large).volumes[0] == pytest.approx(8 * relative.volumes[0], rel=0.02)
    assert measure_volumes(small, 0.5).volumes[0] == pytest.approx(relative.volumes[0] / 8)
    # The same heart in twice as many pixels of half the size.
    assert measure_volumes(large, 0.25).volumes[0] == pytest.approx(measure_volumes(small, 0.5).volumes[0], rel=0.02)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'disks' or 'area_length', got 'biplane'"):
        measure_volumes(np.ones((1, 9, 9), bool), method="biplane")


def test_islands_and_holes_go():
    ventricle = ellipse(28, 16, 10, 112)
    masks = np.repeat(ventricle[None], 5, axis=0)
    masks[:, 55:59, 55:59] = False
    masks[1, 2:6, 2:6] = True
    masks[2, 100:, :80] = True  # larger than the ventricle, for one frame
    masks[3] = False
    cleaned = clean_masks(masks)
    for number in (0, 1, 2, 4):
        np.testing.assert_array_equal(cleaned[number], ventricle)
    assert not cleaned[3].any()
    assert not clean_masks(np.zeros((3, 20, 20), bool)).any()


def test_small_and_cut_masks_are_marked():
    masks = np.stack([ellipse(28, 16, 10, 112), np.roll(ellipse(28, 16, 10, 112), 45, axis=1), ellipse(3, 2, 0, 112)])
    found = measure_volumes(masks)
    assert found.is_cut.tolist() == [False, True, False]
    assert found.is_small.tolist() == [False, False, True]
    assert np.isnan(found.volumes).tolist() == [False, False, True]


def test_smoothing_keeps_peaks_and_removes_outliers():
    times = np.arange(150) / 50
    curve = 100 + 30 * np.cos(2 * np.pi * times)
    noisy = curve + np.random.default_rng(0).normal(0, 1, 150)
    noisy[40] = 300
    smooth = smooth_volumes(noisy, 50)
    assert np.abs(smooth - curve).max() < 2.5
    assert np.abs(smooth - curve).mean() < 0.6
    assert np.abs(smooth_volumes(curve, 50) - curve).max() < 1.0


def test_short_gaps_are_bridged_and_long_ones_stay():
    curve = np.linspace(100, 50, 60)
    curve[[0, 1, 59]] = np.nan
    curve[20:24] = np.nan
    curve[40:48] = np.nan
    smooth = smooth_volumes(curve, 50)
    assert np.flatnonzero(np.isnan(smooth)).tolist() == [0, 1, *range(40, 48), 59]
    assert smooth[22] == pytest.approx(100 - 22 * 50 / 59, abs=0.2)
    assert np.isnan(smooth_volumes(np.full(9, np.nan), 50)).all()
