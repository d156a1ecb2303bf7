import dataclasses

import numpy as np
import pytest

from echomen_hf.simulation import simulate_echo
from echomen_hf.simulation.echo import sample_echo_parameters
from echomen_hf.simulation.export_codecs import through_h264
from echomen_hf.simulation.export_screens import VENDORS
from echomen_hf.simulation.exports import ExportSettings, export_clip, sample_export_settings
from echomen_hf.simulation.fans import fan_mask, lit_fan, whole_fan_parameters


SMALL = ExportSettings(width=320, height=240, fan_height=0.6)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return simulate_echo(1, num_frames=12).frames


def test_an_export_depends_on_its_settings_only(clip):
    first, second = (export_clip(clip, 50.0, SMALL) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)
    assert first.frames.shape == (12, 240, 320)
    assert first.fps == 50.0
    other = export_clip(clip, 50.0, dataclasses.replace(SMALL, seed=1))
    assert not np.array_equal(first.frames, other.frames)


def test_drawn_screens_vary_within_their_limits():
    drawn = [sample_export_settings(np.random.default_rng(seed)) for seed in range(300)]
    assert {settings.vendor for settings in drawn} == set(VENDORS)
    assert {settings.codec for settings in drawn} == {"none", "jpeg", "h264"}
    assert {settings.second_panel for settings in drawn} == {"none", "colour", "still"}
    assert all(640 <= settings.width <= 1920 and 480 <= settings.height <= 1080 for settings in drawn)
    assert all(0.3 <= settings.fan_height <= 0.9 for settings in drawn)
    assert drawn[0] == sample_export_settings(np.random.default_rng(0))


@pytest.mark.parametrize("vendor", list(VENDORS))
def test_the_fan_fills_its_box_and_the_screen_stands_still_around_it(clip, vendor):
    export = export_clip(clip, 50.0, dataclasses.replace(SMALL, vendor=vendor, ecg="none"))
    left, top, right, bottom = export.box
    assert bottom - top == pytest.approx(0.6 * 240, abs=1)
    rows, columns = np.flatnonzero(export.mask.any(axis=1)), np.flatnonzero(export.mask.any(axis=0))
    assert rows[0] == pytest.approx(top, abs=4)
    assert rows[-1] + 1 == pytest.approx(bottom, abs=4)
    assert columns[0] == pytest.approx(left, abs=4)
    assert columns[-1] + 1 == pytest.approx(right, abs=4)
    moving = np.ptp(export.frames.astype(int), axis=0) > 0
    assert moving[export.mask].mean() > 0.7
    assert moving[~export.mask].mean() < 0.03  # changing texts
    assert export.frames[0][~export.mask].max() > 100  # text that stands still


def test_the_electrocardiogram_moves_below_or_across_the_fan(clip):
    without, sweep, scroll = (
        export_clip(clip, 50.0, dataclasses.replace(SMALL, ecg=ecg)).frames for ecg in ("none", "sweep", "scroll")
    )
    assert np.count_nonzero(sweep != without) > 500
    assert np.count_nonzero(np.diff(scroll[:, 200:].astype(int), axis=0)) > np.count_nonzero(
        np.diff(sweep[:, 200:].astype(int), axis=0)
    )


def test_a_second_panel_shows_a_second_fan_and_a_letterbox_black_bars(clip):
    dual = export_clip(clip, 50.0, dataclasses.replace(SMALL, fan_height=0.4, second_panel="colour", second_size=0.95))
    assert dual.box[2] <= 160
    assert np.ptp(dual.frames[:, 60:200, 170:310].astype(int), axis=0).mean() > 5
    still = export_clip(clip, 50.0, dataclasses.replace(SMALL, fan_height=0.4, second_panel="still", ecg="none"))
    half = still.frames[:, 60:190, 170:310] if still.box[2] <= 160 else still.frames[:, 60:190, 10:150]
    assert not np.ptp(half.astype(int), axis=0).any()
    bars = export_clip(clip, 50.0, dataclasses.replace(SMALL, letterbox=0.2))
    assert not bars.frames[:, :24].any()
    assert not bars.frames[:, -24:].any()


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_compression_keeps_the_picture(clip, codec):
    plain = export_clip(clip, 50.0, SMALL).frames.astype(float)
    errors = [
        np.abs(export_clip(clip, 50.0, dataclasses.replace(SMALL, codec=codec, quality=quality)).frames - plain).mean()
        for quality in (95.0, 55.0)
    ]
    assert 0 < errors[0] < errors[1] < 4


def test_the_same_frames_are_always_compressed_alike():
    frames = simulate_echo(9, num_frames=100).frames  # of those that x264 may encode in two ways
    assert len({through_h264(frames, 22).tobytes() for _ in range(20)}) == 1


def test_colours_have_the_luma_of_the_gray_export(clip):
    settings = dataclasses.replace(SMALL, tint=True, calipers=True)
    coloured, gray = (export_clip(clip, 50.0, settings, in_colour=in_colour) for in_colour in (True, False))
    assert coloured.frames.shape == (12, 240, 320, 3)
    luma = coloured.frames @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - gray.frames).mean() < 0.6
    assert np.ptp(coloured.frames.astype(int), axis=3).max() > 100


def test_a_fan_may_overhang_the_picture(clip):
    export = export_clip(clip, 50.0, dataclasses.replace(SMALL, overhang=0.1, across=0.1))
    assert export.box[0] == 0
    assert export.mask[:, 0].any()


def test_impossible_clips_and_settings_are_refused(clip):
    with pytest.raises(ValueError, match="uint8"):
        export_clip(clip.astype(float), 50.0, SMALL)
    with pytest.raises(ValueError, match="no fan"):
        export_clip(np.zeros_like(clip), 50.0, SMALL)
    with pytest.raises(ValueError, match="vendor must be one of cart"):
        ExportSettings(vendor="none")
    with pytest.raises(ValueError, match="even"):
        ExportSettings(width=641)


def test_the_lit_fan_is_the_simulated_one_without_marks(clip):
    parameters = simulate_echo(1, num_frames=12, render=False).parameters
    lit, true = lit_fan(clip), fan_mask(parameters, 112)
    assert np.count_nonzero(lit & true) > 0.9 * np.count_nonzero(lit | true)
    marked = clip.copy()
    marked[:, 2:4, 2:5] = 255
    assert np.array_equal(lit_fan(marked), lit)


def test_a_whole_fan_shows_its_corners_and_fills_the_height_of_its_square():
    rng = np.random.default_rng(3)
    parameters, size, (left, top, right, bottom) = whole_fan_parameters(
        sample_echo_parameters(rng, 55.0, 12, 50.0, "wide")
    )
    mask = fan_mask(parameters, size)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert columns[0] > 0
    assert columns[-1] < size - 1
    assert (rows[0], rows[-1]) == (pytest.approx(top, abs=1.5), pytest.approx(bottom - 1, abs=1.5))
    assert right - left == bottom - top == 112
    frames = simulate_echo(rng, parameters=parameters, image_size=size).frames
    assert frames[:, ~mask].mean() < 2
    assert frames[:, mask].mean() > 10
