import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from echomen_hf.model.sector_echomen import Sector, find_sector
from echomen_hf.simulation import SimulatedFrames, SimulatedVideos, simulate_echo
from echomen_hf.simulation.echo import sample_echo_parameters
from echomen_hf.simulation.exports import Export, ExportSettings, export_clip
from echomen_hf.simulation.fans import fan_mask, whole_fan_parameters


SCREEN = ExportSettings(width=640, height=480, fan_height=0.6, ecg="scroll")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return simulate_echo(4, num_frames=40).frames


def export(clip: np.ndarray, **changes) -> Export:
    return export_clip(clip, 50.0, dataclasses.replace(SCREEN, **changes))


def overlap(first, second) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    return common / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - common)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vendor": "framed", "ecg": "sweep", "down": 1.0},
        {"vendor": "classic", "fan_height": 0.9, "codec": "jpeg", "quality": 55.0},
        {"width": 1024, "height": 768, "fan_height": 0.3, "across": 0.0},
        {"vendor": "workstation", "codec": "h264", "quality": 60.0, "calipers": True},
        {"letterbox": 0.15, "tint": True},
        {"letterbox": -0.15, "across": 1.0},
        {"overhang": 0.05, "across": 0.9},
        {"second_panel": "still", "second_size": 1.0},
        {"second_panel": "colour", "second_size": 0.7, "seed": 1},
        {"second_panel": "colour", "second_size": 0.95},
    ],
)
def test_the_fan_is_found_on_any_screen(clip, changes):
    shown = export(clip, **changes)
    sector = find_sector(shown.frames)
    assert sector.shape == "fan"
    assert sector.confidence > 0.3
    assert overlap(sector.box, shown.box) > 0.9


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (1280, 720)])
@pytest.mark.parametrize("fan_height", [0.66, 0.9])
def test_equal_panels_that_touch_are_two_fans(clip, width, height, fan_height):
    panels = {"width": width, "height": height, "fan_height": fan_height, "second_size": 1.0}
    shown = export(clip, second_panel="colour", ecg="none", **panels)
    assert overlap(find_sector(shown.frames).box, shown.box) > 0.9


def test_a_square_screen_is_no_clip():
    parameters = sample_echo_parameters(np.random.default_rng(1), 55.0, 30, 50.0, "wide")
    parameters, size, (left, top, right, bottom) = whole_fan_parameters(parameters)
    frames = simulate_echo(1, parameters=parameters, image_size=size).frames
    shown = export_clip(
        frames, 50.0, dataclasses.replace(SCREEN, width=600, height=600, fan_height=0.8), fan_mask(parameters, size)
    )
    sector = find_sector(shown.frames)
    assert sector.shape == "fan"
    assert overlap(sector.box, shown.box) > 0.9
    clip = np.kron(frames[:, top:bottom, left:right], np.ones((1, 3, 3), np.uint8))
    assert find_sector(clip).shape == "cropped"


@pytest.mark.parametrize("across", [0.0, 0.88])
def test_a_small_panel_close_to_a_large_one_is_no_part_of_it(clip, across):
    shown = export(clip, second_panel="colour", second_size=0.5, seed=1, across=across, down=1.0, fan_height=0.7)
    assert overlap(find_sector(shown.frames).box, shown.box) > 0.9


def test_a_trace_below_the_fan_does_not_lengthen_it(clip):
    shown = export(clip, down=0.5, ecg="none")
    frames, (left, _, right, bottom) = shown.frames.copy(), shown.box
    trace = np.random.default_rng(1).integers(0, 2, (len(frames), 30, right - left), dtype=np.uint8)
    frames[:, bottom + 12 : bottom + 42, left:right] = 60 * trace  # compression makes it wide and gray
    assert overlap(find_sector(frames).box, shown.box) > 0.9


def test_one_side_that_is_cut_is_enough_for_a_square(clip):
    parameters = sample_echo_parameters(np.random.default_rng(3), 55.0, 20, 50.0, "wide")
    parameters, size, (left, top, right, bottom) = whole_fan_parameters(parameters)
    square = simulate_echo(3, parameters=parameters, image_size=size).frames[:, top:bottom, left:right]
    row, column = np.mgrid[: bottom - top, : right - left]
    lit = np.where(column > 66 + 0.2 * row, np.uint8(0), square)
    shown = export_clip(lit, 50.0, SCREEN, fan_mask(parameters, size)[top:bottom, left:right])
    sector = find_sector(shown.frames)
    assert overlap(sector.box, shown.box) > 0.9


@pytest.mark.parametrize("frames", [slice(0, 10), slice(0, 40, 6), slice(0, 12)])
def test_few_and_distant_frames_are_enough(clip, frames):
    shown = export(clip[frames])
    assert overlap(find_sector(shown.frames).box, shown.box) > 0.9


def test_noise_over_the_whole_screen_does_not_hide_the_fan(clip):
    shown = export(clip)
    noise = np.random.default_rng(1).normal(0, 2, shown.frames.shape)
    noisy = np.clip(shown.frames + noise, 0, 255).astype(np.uint8)
    assert overlap(find_sector(noisy).box, shown.box) > 0.9


def test_the_crop_is_square_black_around_the_fan_and_leaves_the_fan_as_it_was(clip):
    shown = export(clip, vendor="hand-held", across=0.1)
    sector = find_sector(shown.frames)
    cropped = sector.crop(shown.frames)
    left, top, side = sector.square
    assert cropped.dtype == np.uint8
    assert cropped.shape == (40, side, side)
    assert side == pytest.approx(shown.box[3] - shown.box[1], rel=0.03)
    mask = sector.mask()
    assert not cropped[:, ~mask].any()
    assert np.array_equal(cropped[:, mask], shown.frames[:, top : top + side, left : left + side][:, mask])
    assert np.array_equal(sector.crop(shown.frames[5:7]), cropped[5:7])
    true = shown.mask[top : top + side, left : left + side]
    assert np.count_nonzero(true & mask) > 0.97 * np.count_nonzero(true)


def test_a_square_that_reaches_beyond_the_picture_is_filled_with_black():
    frames = np.full((3, 50, 60), 9, dtype=np.uint8)
    sector = Sector((0, 0, 25, 50), "fan", 1.0, (-25, 0, 50), apex=(0.0, 0.0), half_angle=0.8, radius=50.0)
    cropped = sector.crop(frames)
    assert cropped.shape == (3, 50, 50)
    assert not cropped[:, :, :25].any()
    assert (cropped[:, 40, 26:40] == 9).all()


@pytest.mark.parametrize("profile", ["reference", "wide", "held_out_vendor"])
def test_clips_that_are_cropped_already_pass_through_as_the_same_array(profile):
    videos, source = SimulatedVideos(4, seed=7, seconds=(0.7, 1.0)), SimulatedFrames(profile)
    for row in (videos[number] for number in range(4)):
        frames = source.read(row)
        assert find_sector(frames).crop(frames) is frames


def scrolling_text() -> np.ndarray:
    frames = []
    for number in range(30):
        image = Image.new("L", (640, 480))
        for line in range(40):
            ImageDraw.Draw(image).text((20, 20 * line - 5 * number), "the same words again and again " * 3, fill=220)
        frames.append(np.asarray(image))
    return np.stack(frames)


def moving_ball() -> np.ndarray:
    row, column = np.mgrid[:480, :640]
    return np.stack(
        [((row - 100 - 6 * n) ** 2 + (column - 90 - 9 * n) ** 2 < 75**2) * np.uint8(200) for n in range(30)]
    )


def scrolling_strip() -> np.ndarray:
    strip = np.repeat(RNG.integers(0, 200, (300, 400), dtype=np.uint8), 2, axis=1)
    frames = np.zeros((30, 480, 640), dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[100:400, 50:600] = strip[:, 6 * number : 6 * number + 550]
    return frames


def noise_in(area: np.ndarray, frames: int = 30) -> np.ndarray:
    return area * np.random.default_rng(2).integers(0, 256, (frames, *area.shape), dtype=np.uint8)


def disk() -> np.ndarray:
    row, column = np.mgrid[:480, :640]
    return (row - 250) ** 2 + (column - 300) ** 2 < 170**2


def wedge() -> np.ndarray:
    row, column = np.mgrid[:480, :640]
    row, column = row - 60, column - 300
    return (row**2 + column**2 < 350**2) & (np.abs(column) < 0.9 * row)


def pulsing_triangle() -> np.ndarray:
    row, column = np.mgrid[:480, :640]
    sides = 0.8 + 0.2 * np.sin(np.arange(30))[:, None, None]
    return ((np.abs(column - 320) < sides * (row - 60)) & (row < 60 + 320 * sides)) * np.uint8(180)


def turning_square() -> np.ndarray:
    row, column = np.mgrid[:480, :640]
    angle = 0.3 * np.arange(30)[:, None, None]
    along = (row - 240) * np.cos(angle) + (column - 320) * np.sin(angle)
    across = (column - 320) * np.cos(angle) - (row - 240) * np.sin(angle)
    return (np.maximum(np.abs(along), np.abs(across)) < 110) * np.uint8(200)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((30, 480, 640), dtype=np.uint8),
        RNG.integers(0, 256, (30, 480, 640), dtype=np.uint8),
        RNG.integers(0, 256, (2, 480, 640), dtype=np.uint8),
        RNG.integers(0, 256, (30, 16, 16), dtype=np.uint8),
        scrolling_text(),
        moving_ball(),
        scrolling_strip(),
        noise_in(disk()),
        noise_in(disk()[::4, ::4][:112, 20:132]),
        noise_in(wedge()),
        pulsing_triangle(),
        turning_square(),
    ],
    ids=["black", "noise", "two frames", "tiny", "text", "ball", "strip", "noise disk", "small noise disk"]
    + ["noise fan", "triangle", "square"],
)
def test_where_there_is_no_fan_none_is_found_and_frames_stay_as_they_are(frames):
    sector = find_sector(frames)
    assert (sector.shape, sector.confidence) == ("none", 0.0)
    assert sector.box == (0, 0, frames.shape[2], frames.shape[1])
    assert sector.crop(frames) is frames


@pytest.mark.parametrize("changes", [{}, {"vendor": "framed", "ecg": "sweep"}, {"codec": "h264", "quality": 60.0}])
def test_a_fan_upside_down_is_none(clip, changes):
    frames = export(clip, **changes).frames[:, ::-1]
    assert find_sector(frames).shape == "none"
    assert find_sector(clip[:, ::-1]).shape == "none"


def test_a_fan_with_a_dark_side_is_found_whole():
    parameters = sample_echo_parameters(np.random.default_rng(3), 55.0, 20, 50.0, "wide")
    parameters, size, _ = whole_fan_parameters(parameters)
    frames = simulate_echo(3, parameters=parameters, image_size=size).frames
    mask = fan_mask(parameters, size)
    row, column = np.mgrid[:size, :size]
    shadow = column > size / 2 + 0.3 * row
    shown = export_clip(np.where(shadow, np.uint8(0), frames), 50.0, SCREEN, mask)
    sector = find_sector(shown.frames)
    assert overlap(sector.box, shown.box) > 0.9
    assert sector.confidence > 0.15


def test_a_still_export_has_no_fan(clip):
    assert find_sector(export(np.repeat(clip[:1], 12, axis=0), ecg="sweep").frames).shape == "none"


def test_a_hint_chooses_between_fans_and_is_ignored_where_none_is(clip):
    shown = export(clip, second_panel="colour", second_size=0.95)
    right = find_sector(shown.frames, hint=(320, 0, 640, 480))
    assert right.box[0] > 320
    nowhere = find_sector(shown.frames, hint=(0, 0, 20, 20))
    assert overlap(nowhere.box, shown.box) > 0.9
