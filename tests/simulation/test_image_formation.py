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
    return scanner.scan(lambda frames: (x, z, np.zeros_like(x)), np.ones(len(points), dtype=np.float32), 1)[0]


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
        image = scanner.scan(lambda frames: (x, z, scanner_phase), np.ones(3000, dtype=np.float32), 1)[0]
        patch = image[50:62, 50:62].astype(float)
        return patch.std() / patch.mean()

    assert contrast(1.0) < 0.5 * contrast(0.0)


def test_pixels_and_millimetres_agree_at_any_image_size():
    for size in (64, 112, 160):
        geometry = SectorGeometry(CLEAN, size, DEPTH)
        top, bottom = geometry.to_pixels(np.array([[0.0, 0.0], [0.0, DEPTH]]))
        assert (bottom - top)[1] == pytest.approx(108 * size / 112)
        assert (bottom - top)[1] * geometry.mm_per_pixel == pytest.approx(DEPTH)
