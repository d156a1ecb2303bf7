import dataclasses
import math

import numpy as np
import pytest

from echomen_hf.simulation import ImagingParameters
from echomen_hf.simulation.image_formation import SectorGeometry, SectorScanner


DEPTH = 150.0
CLEAN = dataclasses.replace(
    ImagingParameters(),
    apex_row=2.0,
    apex_column=56.0,
    bottom_row=110.0,
    gain=-48.0,  # the picture of a few points has no bright percent: the gain that is set by it would be too high
    shading=0.0,
    streaks=0.0,
    lateral_dropout=0.0,
    attenuation=0.0,
    haze=-90.0,
    near_field_clutter=-90.0,
    noise=-90.0,
    marks=0.0,
    persistence=0.0,
)


def image_of_points(
    points: list[tuple[float, float]], parameters: ImagingParameters = CLEAN, seed: int = 0
) -> np.ndarray:
    scanner = SectorScanner(parameters, SectorGeometry(parameters, 112, DEPTH), np.random.default_rng(seed))
    x, z = (np.array([[point[axis] for point in points]], dtype=np.float32) for axis in (0, 1))
    amplitude = np.ones(len(points), dtype=np.float32)
    return scanner.scan(lambda frames: (x, z, np.zeros_like(x)), amplitude, np.arange(1))[0]


@pytest.mark.parametrize("point", [(0.0, 60.0), (-40.0, 80.0), (50.0, 100.0)])
def test_a_point_is_shown_where_it_lies(point):
    image = image_of_points([point])
    column, row = SectorGeometry(CLEAN, 112, DEPTH).to_pixels(np.array(point))
    brightest = np.unravel_index(image.argmax(), image.shape)
    assert np.hypot(brightest[0] - row, brightest[1] - column) <= 1.5


def test_the_beam_widens_with_depth():
    def width(depth: float) -> int:
        image = image_of_points([(0.0, depth)])
        row = int(np.unravel_index(image.argmax(), image.shape)[0])
        return int((image[row] > 0.3 * image.max()).sum())

    assert width(50) < width(130)


def test_attenuation_darkens_the_deep_echo():
    def ratio(attenuation: float) -> float:
        parameters = dataclasses.replace(CLEAN, attenuation=attenuation)
        image = image_of_points([(0.0, 50.0), (0.0, 120.0)], parameters).astype(float)
        return image[60:].max() / image[:60].max()

    assert ratio(0.1) < 0.8 * ratio(0.0)


def test_nothing_is_shown_outside_the_sector_but_marks():
    noisy = dataclasses.replace(CLEAN, noise=0.0, gain=0.0)
    scanner = SectorScanner(noisy, SectorGeometry(noisy, 112, DEPTH), np.random.default_rng(0))
    image = image_of_points([(0.0, 60.0)], noisy)
    assert image[~scanner.sector_mask].max() == 0
    assert (image[scanner.sector_mask] > 0).mean() > 0.9

    marked = dataclasses.replace(CLEAN, marks=4.0)
    outside = [image_of_points([(0.0, 60.0)], marked, seed)[~scanner.sector_mask] for seed in range(5)]
    assert 0 < np.mean([image > 0 for image in outside]) < 0.01


def test_compounding_reduces_speckle():
    rng = np.random.default_rng(1)
    points = [(float(x), float(z)) for x, z in np.stack([rng.uniform(-15, 15, 3000), rng.uniform(60, 90, 3000)], 1)]
    scanner_phase = rng.uniform(0, 2 * math.pi, (1, 3000)).astype(np.float32)

    def contrast(compounding: float) -> float:
        parameters = dataclasses.replace(CLEAN, compounding=compounding, gain=0.0)
        scanner = SectorScanner(parameters, SectorGeometry(parameters, 112, DEPTH), np.random.default_rng(0))
        x, z = (np.array([[point[axis] for point in points]], dtype=np.float32) for axis in (0, 1))
        image = scanner.scan(lambda frames: (x, z, scanner_phase), np.ones(3000, dtype=np.float32), np.arange(1))[0]
        patch = image[50:62, 50:62].astype(float)
        return patch.std() / patch.mean()

    assert contrast(1.0) < 0.5 * contrast(0.0)


def test_the_beam_is_narrowest_at_its_focus():
    def width(focus: float) -> int:
        image = image_of_points([(0.0, 75.0)], dataclasses.replace(CLEAN, defocus=1.5, focus=focus))
        row = int(np.unravel_index(image.argmax(), image.shape)[0])
        return int((image[row] > 0.3 * image.max()).sum())

    assert width(0.5) < width(1.0)


def evenly_filled(
    parameters: ImagingParameters, seed: int = 0, lateral_loss: float = 0.0
) -> tuple[np.ndarray, SectorScanner]:
    """The picture of scatterers all over the sector, weaker by `lateral_loss` dB at its sides."""
    rng = np.random.default_rng(1)
    depth, angle = DEPTH * np.sqrt(rng.random(6000)), rng.uniform(-0.8, 0.8, 6000)
    x, z = (values.astype(np.float32)[None] for values in (depth * np.sin(angle), depth * np.cos(angle)))
    phase = rng.uniform(0, 2 * math.pi, (1, 6000)).astype(np.float32)
    scanner = SectorScanner(parameters, SectorGeometry(parameters, 112, DEPTH), np.random.default_rng(seed))
    amplitude = (10 ** (-lateral_loss * np.abs(angle) / 0.8 / 20)).astype(np.float32)
    return scanner.scan(lambda frames: (x, z, phase), amplitude, np.arange(1))[0], scanner


@pytest.mark.parametrize("level", [20.0, 60.0])
def test_the_median_of_the_sector_is_the_one_that_the_operator_aims_at(level):
    parameters = dataclasses.replace(CLEAN, gain=0.0, dynamic_range=40.0, median_level=level)
    image, scanner = evenly_filled(parameters, lateral_loss=40.0)
    assert np.median(image[scanner.sector_mask]) == pytest.approx(level, rel=0.25)


def test_a_shadow_darkens_what_lies_behind_it_and_not_what_lies_above():
    plain, scanner = evenly_filled(dataclasses.replace(CLEAN, gain=0.0))
    for seed in range(3):
        shadowed, _ = evenly_filled(dataclasses.replace(CLEAN, gain=0.0, num_shadows=3.0, shadow_loss=40.0), seed)
        assert shadowed[60:].mean() < 0.97 * plain[60:].mean()
    assert scanner.sector_mask.any()


def test_the_tip_of_the_sector_is_cut_off_at_the_radius_of_the_probe():
    geometry = SectorGeometry(CLEAN, 112, DEPTH)
    image, _ = evenly_filled(dataclasses.replace(CLEAN, gain=0.0, probe_radius=12.0))
    depth, _ = geometry.polar_of_pixels()
    assert image[depth < 12].max() == 0
    assert image[(depth > 14) & (depth < 30)].max() > 0


def test_frames_that_are_left_out_change_only_what_persistence_would_have_kept():
    parameters = dataclasses.replace(CLEAN, gain=0.0, persistence=0.4)
    x = np.linspace(-20, 20, 12, dtype=np.float32)[:, None]

    def scan(frames: np.ndarray) -> np.ndarray:
        scanner = SectorScanner(parameters, SectorGeometry(parameters, 112, DEPTH), np.random.default_rng(0))
        echoes = lambda chunk: (x[chunk], np.full_like(x[chunk], 80), np.zeros_like(x[chunk]))  # noqa: E731
        return scanner.scan(echoes, np.ones(1, dtype=np.float32), frames).astype(float)

    every, some = scan(np.arange(12)), scan(np.array([0, 1, 6, 11]))
    assert np.array_equal(every[:2], some[:2])
    # five frames back, 0.4^5 = 1 % of the earlier picture is left
    assert np.abs(some[2] - scan(np.array([6]))[0]).max() <= 0.011 * 255 + 1


def test_pixels_and_millimetres_agree_at_any_image_size():
    for size in (64, 112, 160):
        geometry = SectorGeometry(CLEAN, size, DEPTH)
        top, bottom = geometry.to_pixels(np.array([[0.0, 0.0], [0.0, DEPTH]]))
        assert (bottom - top)[1] == pytest.approx(108 * size / 112)
        assert (bottom - top)[1] * geometry.mm_per_pixel == pytest.approx(DEPTH)
