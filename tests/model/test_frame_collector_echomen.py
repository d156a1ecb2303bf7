from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from echomen_hf.model import frame_collector_echomen as collecting
from echomen_hf.model.frame_collector_echomen import (
    DEFAULT_MAX_BYTES,
    FrameCollector,
    clearly_fewer,
    frame_numbers,
    frames_to_read,
)
from echomen_hf.model.video_source_echomen import VideoReadError


def frame(level: int) -> NDArray[np.uint8]:
    return np.full((4, 4), level, np.uint8)


def levels(frames: NDArray[np.uint8]) -> list[int]:
    return frames[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("found", "promised", "verdict"),
    [
        (10, 10, False),
        (9, 10, False),
        (8, 10, True),
        (12, 10, False),
        (98, 100, False),
        (97, 100, True),
        (0, 0, False),
    ],
)
def test_one_frame_or_two_percent_is_forgiven(found: int, promised: int, verdict: bool) -> None:
    assert clearly_fewer(found, promised) is verdict


def test_frames_come_back_in_the_order_asked_for() -> None:
    wanted = FrameCollector("0XA.avi", [2, 0, 2], DEFAULT_MAX_BYTES)
    assert [wanted.is_wanted(index) for index in range(4)] == [True, False, True, False]
    wanted.add(0, frame(10))
    assert not wanted.complete
    wanted.add(2, frame(30))
    assert wanted.complete
    assert levels(wanted.finish()) == [30, 10, 30]


@pytest.mark.parametrize("indices", [[3, -1], []])
def test_numbers_that_no_frame_has(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="frame numbers from 0 on"):
        frame_numbers(indices)


def test_a_swallowed_frame_repeats_the_last() -> None:
    assert frames_to_read("0XA.avi", [8, 9], 9, 10) == [8, 8]
    with pytest.raises(VideoReadError, match="has 10 frames, but frame 10 was asked for"):
        frames_to_read("0XA.avi", [8, 10], 9, 10)


def test_a_decoder_failure_is_an_error_even_for_one_frame() -> None:
    with pytest.raises(VideoReadError, match=r"only 9 frames of the 10 .* can be decoded \(bad data\)"):
        frames_to_read("0XA.avi", [9], 9, 10, failure="bad data")
    assert frames_to_read("0XA.avi", [8], 9, 10, failure="bad data") == [8]


def test_damage_on_request_repeats_the_last_frame() -> None:
    with pytest.warns(UserWarning, match="0XA.avi: is damaged"):
        assert frames_to_read("0XA.avi", [1, 90], 40, 100, allow_truncated=True) == [1, 39]
    remedy = re.escape("in Python, by read_video(..., allow_truncated=True)")  # no command has it
    with pytest.raises(VideoReadError, match=remedy):
        frames_to_read("0XA.avi", [1, 90], 40, 100, allow_truncated=False)


def test_changing_frame_size_is_refused() -> None:
    every = FrameCollector("0XA.avi", None, DEFAULT_MAX_BYTES)
    every.add(0, frame(0))
    with pytest.raises(VideoReadError, match=r"changes its frame size from \(4, 4\) to \(4, 5\) at frame 1"):
        every.add(1, np.zeros((4, 5), np.uint8))


def test_nothing_decoded() -> None:
    with pytest.raises(VideoReadError, match=r"0XA\.avi: holds no frame that can be decoded \(bad data\)"):
        frames_to_read("0XA.avi", None, 0, 0, failure="bad data")


def test_frames_are_copies_of_what_a_decoder_reuses() -> None:
    for indices in ([0, 1], [1, 0], None):
        wanted, buffer = FrameCollector("0XA.avi", indices, DEFAULT_MAX_BYTES), frame(0)
        for index, level in enumerate((10, 20)):
            buffer[:] = level
            wanted.add(index, buffer)
        buffer[:] = 99
        assert levels(wanted.finish()) == ([20, 10] if indices == [1, 0] else [10, 20])


def test_frames_of_many_blocks_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_BLOCK_BYTES", 3 * 16)
    every = FrameCollector("0XA.avi", None, DEFAULT_MAX_BYTES)
    for index in range(8):
        every.add(index, frame(index))
    assert levels(every.finish()) == list(range(8))


def test_more_frames_than_there_is_room_for_are_refused_before_room_is_taken() -> None:
    wanted = FrameCollector("0XA.avi", range(2**40, 2**40 + 10**6), 2 * 16)
    for index in range(2):
        wanted.add(2**40 + index, frame(index))
    with pytest.raises(VideoReadError, match="holds more than 32 bytes of frames"):
        wanted.add(2**40 + 2, frame(2))
