"""Which work overlapping clips have in common, and how many operations sharing it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...model.r2plus1d_echomen import R2Plus1DEncoder


__all__ = [
    "ClipGroup",
    "Margins",
    "WindowCost",
    "choose_shared_blocks",
    "encoder_costs",
    "group_clips",
    "split_phases",
    "stem_and_blocks",
    "window_cost",
]


@dataclass(frozen=True)
class Margins:
    """Frames of a clip's features that depend on where the clip begins and ends."""

    length: int  # frames of the clip at this depth of the network
    left: int = 0  # of them, those that the padding before the clip has reached
    right: int = 0  # and those that the padding after the clip has reached

    @property
    def interior(self) -> int:
        """Frames that depend on the timeline alone; below 1, nothing can be shared."""
        return self.length - self.left - self.right

    def after(self, stride: int) -> Margins:
        """Margins behind a temporal convolution over 3 frames with one frame of zero padding at both ends.

        Output frame v sees the input frames stride * v - 1 to stride * v + 1, and belongs to a margin if one of these
        does, or is padding.
        """
        length = (self.length - 1) // stride + 1
        left = -(-(self.left + 1) // stride)
        first_right = -(-(self.length - self.right - 1) // stride)
        return Margins(length, min(left, length), max(0, length - first_right))


@dataclass(frozen=True)
class Phase:
    """Clips that keep the same frames of their timeline when a convolution takes every `stride`-th frame."""

    clips: NDArray[np.int64]  # which clips of the timeline, (n,)
    offset: int  # frame of the old timeline at which the first of them begins
    positions: NDArray[np.int64]  # where they begin in the new timeline, counted from the first, (n,)


def split_phases(positions: NDArray[np.int64], stride: int) -> list[Phase]:
    """Sort the clips of a timeline by the frames that a strided convolution takes from them."""
    phases = []
    for remainder in range(stride):
        clips = np.flatnonzero(positions % stride == remainder)
        if len(clips):
            offset = int(positions[clips[0]])
            phases.append(Phase(clips, offset, (positions[clips] - offset) // stride))
    return phases


@dataclass(frozen=True)
class ClipGroup:
    """Overlapping clips of one timeline."""

    clips: NDArray[np.int64]  # which of all clips, (n,)
    positions: NDArray[np.int64]  # where they begin in the timeline, increasing from 0, (n,)
    frames: NDArray[np.int64]  # source frame at each place of the timeline, (positions[-1] + frames of a clip,)


def group_clips(starts: NDArray[np.int64], frame_offsets: NDArray[np.int64], max_frames: int) -> list[ClipGroup]:
    """Find the timelines of which overlapping clips are windows.

    Where the spacing of a clip's frames is not a whole number, the pattern of rounded offsets repeats after some
    frames, such as 0, 1, 2, 4, 5 | 6, 7, 8, 10, 11 at 30 frames per second: clips 6 source frames apart then share a
    timeline, 5 places apart. Where it does not repeat within a clip, nothing is shared.
    """
    length = len(frame_offsets)
    source_period, clip_period = _repetition(frame_offsets)
    if source_period == 0:
        return [ClipGroup(np.array([i]), np.zeros(1, np.int64), s + frame_offsets) for i, s in enumerate(starts)]
    groups = []
    for remainder in np.unique(starts % source_period):
        clips = np.flatnonzero(starts % source_period == remainder)
        clips = clips[np.argsort(starts[clips], kind="stable")]
        positions = clip_period * (starts[clips] // source_period)
        for rest in np.split(np.arange(len(clips)), np.flatnonzero(np.diff(positions) >= length) + 1):
            while len(rest):
                fits = positions[rest] - positions[rest[0]] <= max(max_frames - length, 0)
                groups.append(_make_group(clips[rest[fits]], positions[rest[fits]], starts, frame_offsets))
                rest = rest[~fits]
    return groups


def _repetition(frame_offsets: NDArray[np.int64]) -> tuple[int, int]:
    """Source frames and clip frames after which the pattern of a clip repeats; 0 if it does not within the clip."""
    for clip_period in range(1, len(frame_offsets)):
        differences = frame_offsets[clip_period:] - frame_offsets[:-clip_period]
        if differences[0] > 0 and (differences == differences[0]).all():
            return int(differences[0]), clip_period
    return 0, 0


def _make_group(
    clips: NDArray[np.int64],
    positions: NDArray[np.int64],
    starts: NDArray[np.int64],
    frame_offsets: NDArray[np.int64],
) -> ClipGroup:
    positions = positions - positions[0]
    frames = np.empty(positions[-1] + len(frame_offsets), dtype=np.int64)
    for clip, position in zip(clips, positions):
        frames[position : position + len(frame_offsets)] = starts[clip] + frame_offsets
    return ClipGroup(clips, positions, frames)


@dataclass(frozen=True)
class BlockCost:
    """Multiply-accumulate operations of one block of the encoder, per frame that each convolution puts out."""

    stride: int  # of the first temporal convolution, and of the shortcut
    spatial: tuple[int, ...]  # one per factorised pair
    temporal: tuple[int, ...]
    shortcut: int  # 0 without a convolution there

    def of_clip(self, length: int) -> tuple[int, int]:
        """Operations on one clip of `length` frames, and the frames that go out."""
        out = (length - 1) // self.stride + 1
        lengths = (length, *(out for _ in self.spatial[1:]))
        spatial = sum(cost * frames for cost, frames in zip(self.spatial, lengths))
        return spatial + out * (sum(self.temporal) + self.shortcut), out


def stem_and_blocks(encoder: R2Plus1DEncoder) -> list[nn.Module]:
    """List the stem and the residual blocks of an encoder, in the order in which they run."""
    stages = (cast(nn.Sequential, encoder.get_submodule(name)) for name in encoder.stage_names)
    return [encoder.stem, *(block for stage in stages for block in stage)]


def encoder_costs(encoder: R2Plus1DEncoder, height: int, width: int) -> list[BlockCost]:
    """Count the operations of an encoder's convolutions; all else costs less than 1 % of them and is left out."""
    costs = []
    for block in stem_and_blocks(encoder):
        convs = [module for module in block.modules() if isinstance(module, nn.Conv3d)]
        downsample = getattr(block, "downsample", None) or ()
        shortcut = [module for module in downsample if isinstance(module, nn.Conv3d)]
        main = [conv for conv in convs if conv not in shortcut]
        spatial, temporal = [], []
        for first, second in zip(main[::2], main[1::2]):
            height, width = (
                (size + 2 * cast(int, first.padding[axis]) - first.kernel_size[axis]) // first.stride[axis] + 1
                for axis, size in ((1, height), (2, width))
            )
            spatial.append(first.weight.numel() * height * width)
            temporal.append(second.weight.numel() * height * width)
        costs.append(
            BlockCost(
                stride=main[1].stride[0],
                spatial=tuple(spatial),
                temporal=tuple(temporal),
                shortcut=sum(conv.weight.numel() for conv in shortcut) * height * width,
            )
        )
    return costs


def shared_macs(
    costs: Sequence[BlockCost], positions: NDArray[np.int64], margins: Margins, num_shared: int
) -> tuple[int, int]:
    """Count the operations on the clips of a timeline if its first `num_shared` blocks run on the whole timeline.

    What these blocks compute near the ends of a clip is computed again per clip, and the other blocks run per clip.
    The result is the operations on the timeline, and those per clip, of all clips together.
    """
    if num_shared == 0:
        per_clip, length = 0, margins.length
        for cost in costs:
            macs, length = cost.of_clip(length)
            per_clip += macs
        return 0, per_clip * len(positions)
    first, rest = costs[0], costs[1:]
    timeline = first.spatial[0] * (int(positions[-1]) + margins.interior)
    clips = first.spatial[0] * (margins.left + margins.right) * len(positions)
    for phase in split_phases(positions, first.stride):
        inside, extent = margins.after(first.stride), int(phase.positions[-1])
        timeline += first.temporal[0] * (extent + inside.interior)
        clips += first.temporal[0] * (inside.left + inside.right) * len(phase.clips)
        for spatial, temporal in zip(first.spatial[1:], first.temporal[1:]):
            timeline += spatial * (extent + inside.interior)
            clips += spatial * (inside.left + inside.right) * len(phase.clips)
            inside = inside.after(1)
            timeline += temporal * (extent + inside.interior)
            clips += temporal * (inside.left + inside.right) * len(phase.clips)
        timeline += first.shortcut * (extent + inside.interior)
        clips += first.shortcut * (inside.left + inside.right) * len(phase.clips)
        deeper = shared_macs(rest, phase.positions, inside, num_shared - 1)
        timeline, clips = timeline + deeper[0], clips + deeper[1]
    return timeline, clips


def choose_shared_blocks(costs: Sequence[BlockCost], group: ClipGroup) -> tuple[int, int]:
    """Choose how many blocks to run on the whole timeline, 0 if sharing saves nothing, and count the operations."""
    margins = Margins(len(group.frames) - int(group.positions[-1]))
    best = (sum(shared_macs(costs, group.positions, margins, 0)), 0)
    inside = margins
    for num_shared, cost in enumerate(costs, start=1):
        inside = inside.after(cost.stride)
        for _ in cost.temporal[1:]:
            inside = inside.after(1)
        if inside.interior < 1:
            break
        best = min(best, (sum(shared_macs(costs, group.positions, margins, num_shared)), num_shared))
    return best[1], best[0]


@dataclass(frozen=True)
class WindowCost:
    """Floating point operations of the encoder on the clips of a video, two per multiply-accumulate."""

    clip_by_clip: int
    shared: int

    @property
    def ratio(self) -> float:
        """How many times fewer operations sharing takes."""
        return self.clip_by_clip / self.shared


def window_cost(
    encoder: R2Plus1DEncoder,
    starts: NDArray[np.int64],
    frame_offsets: NDArray[np.int64],
    height: int,
    width: int,
    max_frames: int = 96,
) -> WindowCost:
    """Count the operations that sharing between overlapping clips saves."""
    costs = encoder_costs(encoder, height, width)
    single = sum(shared_macs(costs, np.zeros(1, np.int64), Margins(len(frame_offsets)), 0))
    groups = group_clips(starts, frame_offsets, max_frames)
    return WindowCost(2 * single * len(starts), 2 * sum(choose_shared_blocks(costs, group)[1] for group in groups))
