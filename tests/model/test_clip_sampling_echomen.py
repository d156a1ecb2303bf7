from __future__ import annotations

import numpy as np
import pytest

from echomen_hf.model.clip_sampling_echomen import (
    DEFAULT_PROTOCOL,
    ClipSpec,
    ShortVideos,
    clip_indices,
    parse_protocol,
    protocol_starts,
    random_start,
)


SPEC = ClipSpec()


def test_default_clip_at_50_fps_is_every_second_of_63_frames() -> None:
    np.testing.assert_array_equal(SPEC.frame_offsets(50), 2 * np.arange(32))
    assert SPEC.span(50) == 63
    assert SPEC.frame_step(50) == 2


@pytest.mark.parametrize("fps", [12.5, 25, 30, 43, 50, 57, 60, 100, 138])
def test_clip_spans_the_same_time_at_any_frame_rate(fps: float) -> None:
    # Rounding to whole frames moves the last frame by at most half a frame.
    assert SPEC.frame_offsets(fps)[-1] / fps == pytest.approx(62 / 50, abs=0.5 / fps + 1e-12)


def test_offsets_round_half_up() -> None:
    # Step 0.5 at 12.5 fps: 0, 0.5, 1, 1.5, 2 -> 0, 1, 1, 2, 2; half-to-even would give 0, 0, 1, 2, 2.
    np.testing.assert_array_equal(ClipSpec(num_frames=5).frame_offsets(12.5), [0, 1, 1, 2, 2])
    # Step 1.2 at 30 fps: 0, 1.2, 2.4, 3.6, 4.8, 6.0.
    np.testing.assert_array_equal(ClipSpec(num_frames=6).frame_offsets(30), [0, 1, 2, 4, 5, 6])


def test_exact_halves_survive_inexact_arithmetic() -> None:
    # 25 x 2.28 = 57 at 57 fps, and 25 x 2.26 = 56.5 at 56.5 fps, which floating point puts just below the half.
    assert 25 * (2 * 56.5 / 50) < 56.5
    assert SPEC.frame_offsets(57)[25] == 57
    assert SPEC.frame_offsets(56.5)[25] == 57


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_frames", 0), ("num_frames", 1.5), ("sampling_period", 0), ("reference_fps", -1), ("reference_fps", np.nan)],
)
def test_impossible_spec_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        ClipSpec(**{field: value})


@pytest.mark.parametrize("fps", [0, -50, np.nan, np.inf])
def test_impossible_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be a positive number"):
        SPEC.frame_offsets(fps)


def test_clip_indices_mark_frames_past_the_end() -> None:
    indices = clip_indices(start=1, video_length=8, fps=50, spec=ClipSpec(num_frames=5))
    np.testing.assert_array_equal(indices, [1, 3, 5, 7, -1])
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("zeros", [0, 2, -1, -1, -1, -1]),
        ("last_frame", [0, 2, 3, 3, 3, 3]),
        ("loop", [0, 2, 0, 2, 0, 2]),
        ("back_and_forth", [0, 2, 2, 0, 2, 2]),  # 0 1 2 3 2 1 0 1 2 3 2
    ],
)
def test_a_short_video_is_filled_up(rule: ShortVideos, expected: list[int]) -> None:
    spec = ClipSpec(num_frames=6, short_videos=rule)
    np.testing.assert_array_equal(clip_indices(0, 4, 50, spec), expected)
    long_enough = clip_indices(3, 14, 50, spec)
    np.testing.assert_array_equal(long_enough, [3, 5, 7, 9, 11, 13])
    assert set(clip_indices(0, 1, 50, spec)) <= {0, -1}


def test_an_unknown_rule_for_short_videos_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="zeros, last_frame, loop, back_and_forth, got 'mirror'"):
        ClipSpec(short_videos="mirror")  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [-1, 10])
def test_clip_indices_refuse_a_start_outside_the_video(start: int) -> None:
    with pytest.raises(ValueError, match=r"start must lie in \[0, 10\)"):
        clip_indices(start, 10, 50, SPEC)


def test_random_start_is_uniform_over_full_clips() -> None:
    generator = np.random.default_rng(0)
    # 66 frames, span 63: starts 0, 1, 2, 3.
    draws = np.array([random_start(66, 50, SPEC, generator) for _ in range(4000)])
    counts = np.bincount(draws, minlength=4)
    assert len(counts) == 4
    # Four standard deviations of a binomial(4000, 1/4).
    np.testing.assert_allclose(counts, 1000, atol=4 * np.sqrt(4000 * 0.25 * 0.75))


def test_random_start_repeats_with_its_generator() -> None:
    first, second = ([random_start(500, 50, SPEC, g) for _ in range(20)] for g in map(np.random.default_rng, (7, 7)))
    assert first == second


@pytest.mark.parametrize("length", [1, 28, 62, 63])
@pytest.mark.parametrize("protocol", ["all", "every4", "windows", "center", "5"])
def test_video_without_room_has_the_single_start_zero(length: int, protocol: str) -> None:
    np.testing.assert_array_equal(protocol_starts(protocol, length, 50, SPEC), [0])
    assert random_start(length, 50, SPEC, np.random.default_rng(0)) == 0


def test_protocols_on_a_video_of_median_length() -> None:
    # 171 frames, span 63: last full clip starts at 108.
    np.testing.assert_array_equal(protocol_starts("all", 171, 50, SPEC), np.arange(109))
    np.testing.assert_array_equal(protocol_starts("windows", 171, 50, SPEC), [0, 64, 108])
    np.testing.assert_array_equal(protocol_starts("center", 171, 50, SPEC), [54])
    np.testing.assert_array_equal(protocol_starts(4, 171, 50, SPEC), [0, 36, 72, 108])
    np.testing.assert_array_equal(protocol_starts("1", 171, 50, SPEC), [54])


def test_strided_starts_end_with_the_last_start() -> None:
    # 171 frames: starts 0 to 108, of which 108 is a multiple of 4 and not of 8 or 100.
    np.testing.assert_array_equal(protocol_starts("every4", 171, 50, SPEC), np.arange(0, 109, 4))
    np.testing.assert_array_equal(protocol_starts("every8", 171, 50, SPEC), [*range(0, 108, 8), 108])
    np.testing.assert_array_equal(protocol_starts("every100", 171, 50, SPEC), [0, 100, 108])
    np.testing.assert_array_equal(protocol_starts("every500", 171, 50, SPEC), [0, 108])
    np.testing.assert_array_equal(protocol_starts("every1", 171, 50, SPEC), protocol_starts("all", 171, 50, SPEC))


def test_windows_that_fit_exactly_are_not_repeated() -> None:
    np.testing.assert_array_equal(protocol_starts("windows", 64 + 63, 50, SPEC), [0, 64])
    np.testing.assert_array_equal(protocol_starts("windows", 64 + 64, 50, SPEC), [0, 64, 65])


@pytest.mark.parametrize("fps", [25, 29.97, 43, 50, 57, 100])
@pytest.mark.parametrize("length", [64, 171, 1002])
def test_windows_are_full_and_cover_the_video(fps: float, length: int) -> None:
    starts = protocol_starts("windows", length, fps, SPEC)
    span = SPEC.span(fps)
    assert starts.dtype == np.int64
    if length >= span:
        assert starts[-1] + span == length
        assert (clip_indices(starts[-1], length, fps, SPEC) >= 0).all()
    # A stride rounded to whole frames leaves out at most the frames between two samples.
    assert np.diff(starts, prepend=0).max() <= span + SPEC.frame_step(fps)


def test_more_clips_than_starts_gives_each_start_once() -> None:
    np.testing.assert_array_equal(protocol_starts("10", 66, 50, SPEC), [0, 1, 2, 3])


def test_empty_video_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        protocol_starts("center", 0, 50, SPEC)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" All ", "all"),
        ("WINDOWS", "windows"),
        ("center", "center"),
        (5, "5"),
        ("007", "7"),
        (" Every4", "every4"),
        ("every08", "every8"),
        ("every1", "all"),
    ],
)
def test_protocol_names_become_canonical(text: str | int, canonical: str) -> None:
    assert parse_protocol(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "centre of mass", "0", "-3", "2.5", "²", "every", "every0", "every-4", "every4.0", "every²"]
)
def test_unknown_protocol_lists_the_choices(text: str) -> None:
    with pytest.raises(ValueError, match=r"'all'.*'everyN'.*'windows'.*'center'.*N >= 1"):
        parse_protocol(text)


def test_default_protocol_is_known() -> None:
    assert parse_protocol(DEFAULT_PROTOCOL) == "windows"


def test_beats_are_centred_on_end_systole_and_stay_inside():
    spec = ClipSpec()  # 63 frames at 50 per second
    assert protocol_starts("beats", 200, 50, spec, [10, 80, 190]).tolist() == [0, 49, 137]
    assert protocol_starts("beats", 40, 50, spec, [10, 30]).tolist() == [0]
    windows = protocol_starts("windows", 200, 50, spec)
    np.testing.assert_array_equal(protocol_starts("beats", 200, 50, spec, []), windows)
    with pytest.raises(ValueError, match="needs the outline of a video"):
        protocol_starts("beats", 200, 50, spec)
