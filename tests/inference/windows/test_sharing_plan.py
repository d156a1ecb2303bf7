from __future__ import annotations

import numpy as np
import pytest
import torch

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.inference.windows.sharing_plan import (
    Margins,
    choose_shared_blocks,
    encoder_costs,
    group_clips,
    split_phases,
    window_cost,
)
from echomen_hf.model.clip_sampling_echomen import ClipSpec, protocol_starts


@pytest.fixture(scope="module")
def full_size_encoder():
    with torch.device("meta"):
        return EchoMENModel(EchoMENConfig()).encoder


def test_margins_of_the_full_size_network() -> None:
    margins = Margins(32)
    for _ in range(5):  # the stem and the four temporal convolutions of the first stage
        margins = margins.after(1)
    assert margins == Margins(32, 5, 5)
    # Output v sees inputs 2v - 1 to 2v + 1: v = 0, 1, 2 see one of 0-4, and v = 13, 14, 15 one of 27-31.
    margins = margins.after(2)
    assert margins == Margins(16, 3, 3)
    margins = margins.after(1).after(1).after(1)
    assert margins == Margins(16, 6, 6)
    # v = 0-3 see one of 0-5, and v = 5, 6, 7 one of 10-15.
    assert margins.after(2) == Margins(8, 4, 3)
    assert margins.after(2).after(1).interior < 1


def test_stride_leaves_an_end_without_padding() -> None:
    # 8 frames: output 3 sees inputs 5, 6, 7 and no padding; of 9 frames, output 4 sees 7, 8 and padding.
    assert Margins(8).after(2) == Margins(4, 1, 0)
    assert Margins(9).after(2) == Margins(5, 1, 1)


def test_phases_part_even_from_odd_starts() -> None:
    even, odd = split_phases(np.array([0, 1, 2, 4, 7]), 2)
    np.testing.assert_array_equal(even.clips, [0, 2, 3])
    np.testing.assert_array_equal(even.positions, [0, 1, 2])
    assert (even.offset, odd.offset) == (0, 1)
    np.testing.assert_array_equal(odd.clips, [1, 4])
    np.testing.assert_array_equal(odd.positions, [0, 3])


def test_starts_at_50_fps_make_two_timelines() -> None:
    even, odd = group_clips(np.arange(5), ClipSpec().frame_offsets(50), max_frames=96)
    np.testing.assert_array_equal(even.clips, [0, 2, 4])
    np.testing.assert_array_equal(even.positions, [0, 1, 2])
    np.testing.assert_array_equal(even.frames, 2 * np.arange(34))
    np.testing.assert_array_equal(odd.frames, 1 + 2 * np.arange(33))


def test_starts_at_30_fps_share_a_timeline_every_sixth_frame() -> None:
    # Offsets 0, 1, 2, 4, 5, 6, 7, 8, 10, 11: after 5 frames of the clip, the pattern repeats 6 source frames later.
    groups = group_clips(np.arange(12), ClipSpec(num_frames=10).frame_offsets(30), max_frames=96)
    assert len(groups) == 6
    np.testing.assert_array_equal(groups[0].clips, [0, 6])
    np.testing.assert_array_equal(groups[0].positions, [0, 5])
    np.testing.assert_array_equal(groups[0].frames, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17])


def test_clips_that_do_not_overlap_are_alone() -> None:
    groups = group_clips(np.array([0, 64, 70]), ClipSpec().frame_offsets(50), max_frames=96)
    assert [list(group.clips) for group in groups] == [[0], [1, 2]]
    # Differences 1, 2, 1, 2, 2 do not repeat: only clips 8 source frames apart would share a frame of the pattern.
    groups = group_clips(np.arange(4), np.array([0, 1, 3, 4, 6, 8]), max_frames=96)
    assert [list(group.clips) for group in groups] == [[0], [1], [2], [3]]


def test_long_timelines_are_cut_in_parts() -> None:
    # 10 clips at places 0 to 9 of a timeline; 35 frames have room for 4 of them.
    groups = group_clips(np.arange(0, 20, 2), ClipSpec().frame_offsets(50), max_frames=35)
    assert [list(group.clips) for group in groups] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [len(group.frames) for group in groups] == [35, 35, 33]
    # Clips further apart fill a timeline sooner, and a clip longer than the bound is a timeline of its own.
    assert [len(g.clips) for g in group_clips(np.array([0, 6, 12]), ClipSpec().frame_offsets(50), 35)] == [2, 1]
    assert [len(g.clips) for g in group_clips(np.array([0, 2]), ClipSpec().frame_offsets(50), 8)] == [1, 1]


def test_cost_of_the_full_size_network(full_size_encoder) -> None:
    costs = encoder_costs(full_size_encoder, 112, 112)
    assert len(costs) == 9
    # Stem: 3 x 45 x 7 x 7 and 45 x 64 x 3 weights at 56 x 56 pixels; first block: 64 x 144 x 9 and 144 x 64 x 3.
    assert (costs[0].spatial, costs[0].temporal) == ((6615 * 3136,), (8640 * 3136,))
    assert (costs[1].spatial, costs[1].temporal) == ((82944 * 3136,) * 2, (27648 * 3136,) * 2)
    assert (costs[3].stride, costs[3].shortcut) == (2, 64 * 128 * 784)
    starts, offsets = np.arange(1), ClipSpec().frame_offsets(50)
    assert window_cost(full_size_encoder, starts, offsets, 112, 112).clip_by_clip == pytest.approx(162e9, rel=0.01)


def test_sharing_more_than_halves_the_cost_of_all_starts(full_size_encoder) -> None:
    spec = ClipSpec()
    ratios = {}
    for protocol in ("all", "every4", "every8", "windows"):
        starts = protocol_starts(protocol, 180, 50, spec)
        ratios[protocol] = window_cost(full_size_encoder, starts, spec.frame_offsets(50), 112, 112).ratio
    assert ratios["all"] > 2.1
    assert ratios["all"] > ratios["every4"] > ratios["every8"] > ratios["windows"] >= 1


def test_a_single_clip_has_nothing_to_share(full_size_encoder) -> None:
    costs = encoder_costs(full_size_encoder, 112, 112)
    (group,) = group_clips(np.arange(1), ClipSpec().frame_offsets(50), max_frames=96)
    num_shared, macs = choose_shared_blocks(costs, group)
    assert num_shared == 0
    assert 2 * macs == window_cost(full_size_encoder, np.arange(1), ClipSpec().frame_offsets(50), 112, 112).shared
