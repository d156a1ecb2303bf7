import numpy as np
import pytest

from benchmarks.simulation_realism import REAL_RANGES, cavity_mask, measure_realism
from echomen_hf.simulation import simulate_echo


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    rows = [measure_realism(simulate_echo([17, index], num_frames=70)) for index in range(8)]
    return {name: np.array([row[name] for row in rows]) for name in REAL_RANGES}


def test_a_rectangular_tracing_covers_its_rectangle():
    heights = 10 + 40 * (np.arange(20) + 0.5) / 20
    chords = np.stack([np.full(20, 20.0), heights, np.full(20, 50.0), heights], axis=1)
    mask = cavity_mask(np.concatenate([[[35, 10, 35, 50]], chords]), 112)
    assert mask.sum() == pytest.approx(40 * 30, rel=0.04)
    assert mask[30, 35]
    assert not mask[30, 60]


RANGED = [name for name, real in REAL_RANGES.items() if real.low is not None and name != "sector 25 %"]


@pytest.mark.parametrize("name", RANGED)
def test_simulated_clips_lie_within_the_range_of_real_ones(measured, name):
    real = REAL_RANGES[name]
    assert real.low <= measured[name].mean() <= real.high


@pytest.mark.parametrize("name", ["sector 25 %", "sector 75 %", "sector 90 %", "sector 95 %"])
def test_grey_levels_are_near_the_real_ones(measured, name):
    assert measured[name].mean() == pytest.approx(REAL_RANGES[name].mean, abs=20)


@pytest.mark.parametrize("name", [name for name in REAL_RANGES if "correlation" in name])
def test_texture_and_its_persistence_are_near_the_real_ones(measured, name):
    assert measured[name].mean() == pytest.approx(REAL_RANGES[name].mean, abs=0.15)


@pytest.fixture(scope="module")
def wide() -> dict[str, np.ndarray]:
    """What 32 clips of the wide profile measure."""
    rows = [measure_realism(simulate_echo([23, index], num_frames=50, profile="wide")) for index in range(32)]
    return {name: np.array([row[name] for row in rows]) for name in REAL_RANGES}


@pytest.mark.parametrize("name", [name for name, real in REAL_RANGES.items() if real.low is not None])
def test_the_mean_of_wide_clips_lies_within_the_range_of_real_ones(wide, name):
    real = REAL_RANGES[name]
    assert real.low <= wide[name].mean() <= real.high


def test_most_wide_clips_lie_within_the_range_of_real_ones(wide):
    shares = {
        name: ((wide[name] >= real.low) & (wide[name] <= real.high)).mean()
        for name, real in REAL_RANGES.items()
        if real.low is not None and name != "sector 25 %"
    }
    assert min(shares.values()) > 0.5, shares
    assert np.mean(list(shares.values())) > 0.75


@pytest.mark.parametrize("name", [name for name in REAL_RANGES if "correlation" in name])
def test_texture_of_wide_clips_and_its_persistence_are_near_the_real_ones(wide, name):
    assert wide[name].mean() == pytest.approx(REAL_RANGES[name].mean, abs=0.2)
