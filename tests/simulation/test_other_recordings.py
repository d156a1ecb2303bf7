"""Simulated recordings that show no apical four-chamber view."""

import numpy as np
import pytest

from echomen_hf.simulation.other_recordings import OTHER_RECORDINGS, simulate_other_recording


SIZE, FRAMES = 56, 60


@pytest.fixture(scope="module")
def recordings():
    return {kind: simulate_other_recording(kind, 3, FRAMES, 50.0, SIZE) for kind in OTHER_RECORDINGS}


@pytest.mark.parametrize("kind", OTHER_RECORDINGS)
def test_a_seed_decides_the_frames(recordings, kind):
    frames = recordings[kind]
    assert (frames.shape, frames.dtype) == ((FRAMES, SIZE, SIZE), np.uint8)
    np.testing.assert_array_equal(frames, simulate_other_recording(kind, 3, FRAMES, 50.0, SIZE))
    assert (frames != simulate_other_recording(kind, 4, FRAMES, 50.0, SIZE)).any()


def test_everything_but_a_still_moves(recordings):
    for kind, frames in recordings.items():
        assert (frames.std(axis=0).max() > 5) == (kind != "still"), kind


@pytest.mark.parametrize("kind", ["short_axis", "long_axis", "lung"])
def test_a_view_is_dark_outside_the_sector_of_its_machine(recordings, kind):
    frames = recordings[kind]
    corners = frames[:, -4:, [0, 1, -2, -1]]
    assert corners.mean() < 0.5 * frames.mean()
    other = simulate_other_recording(kind, 3, FRAMES, 50.0, SIZE, profile="held_out_vendor")
    assert (other != frames).any()


def test_the_cavity_of_a_short_axis_pulsates_with_the_beat():
    frames = simulate_other_recording("short_axis", 3, 100, 50.0, 112).astype(float)
    cavity = frames[:, 45:70, 45:70].mean(axis=(1, 2))
    spectrum = np.abs(np.fft.rfft(cavity - cavity.mean()))
    assert 1 <= np.argmax(spectrum) <= 6  # beats in two seconds


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of recording 'cat'.*short_axis"):
        simulate_other_recording("cat", 0)
