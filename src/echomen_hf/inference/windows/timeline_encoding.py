"""The encoder on a timeline and at the ends of its clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ...model.r2plus1d_echomen import R2Plus1DBlock
from ..engines.planar_convolutions import PlanarTemporalConv, convolve_time
from .sharing_plan import Margins, split_phases


__all__ = ["Block", "run_timeline"]


@dataclass(frozen=True)
class Pair:
    """A factorised convolution: spatial convolution, ReLU, temporal convolution without its padding.

    Folding leaves an identity of each batch normalisation.
    """

    spatial: nn.Conv3d
    spatial_norm: nn.Module
    temporal: nn.Conv3d
    temporal_norm: nn.Module

    @property
    def stride(self) -> int:
        """Temporal stride."""
        return self.temporal.stride[0]

    def run_spatial(self, features: torch.Tensor) -> torch.Tensor:
        """Run the spatial half on features of shape (n, t, H, W, C), frame by frame."""
        return on_channels_first(lambda x: F.relu_(self.spatial_norm(self.spatial(x))), features)

    def run_temporal(self, features: torch.Tensor) -> torch.Tensor:
        """Run the temporal half on features of shape (n, t, H, W, C), only where it sees 3 frames of them."""

        def convolve(x: torch.Tensor) -> torch.Tensor:
            run = convolve_time if isinstance(self.temporal, PlanarTemporalConv) else F.conv3d
            return self.temporal_norm(run(x, self.temporal.weight, self.temporal.bias, self.temporal.stride))

        return on_channels_first(convolve, features)


@dataclass(frozen=True)
class Block:
    """Stem or residual block, taken apart."""

    pairs: tuple[Pair, ...]  # a ReLU follows each
    residual: bool  # whether the input is added before the last ReLU
    downsample: nn.Sequential | None  # convolution and normalisation of that input, if it changes size

    @classmethod
    def of(cls, module: nn.Module) -> Block:
        """Take a stem or a residual block apart."""
        if isinstance(module, nn.Sequential):
            spatial, spatial_norm, _, temporal, temporal_norm, _ = module
            pairs = [Pair(cast(nn.Conv3d, spatial), spatial_norm, cast(nn.Conv3d, temporal), temporal_norm)]
            return cls(tuple(pairs), residual=False, downsample=None)
        block = cast(R2Plus1DBlock, module)
        pairs = []
        for half in (block.conv1, block.conv2):
            spatial, spatial_norm, _, temporal = cast(nn.Sequential, half[0])
            pairs.append(Pair(cast(nn.Conv3d, spatial), spatial_norm, cast(nn.Conv3d, temporal), half[1]))
        return cls(tuple(pairs), residual=True, downsample=block.downsample)

    @property
    def stride(self) -> int:
        """Temporal stride."""
        return self.pairs[0].stride

    def shortcut(self, features: torch.Tensor) -> torch.Tensor:
        """Bring every `stride`-th frame of the input, shape (n, t, H, W, C), to the size of the output."""
        if self.downsample is None:
            return features
        conv, norm = cast(nn.Conv3d, self.downsample[0]), self.downsample[1]
        stride = (1, *conv.stride[1:])
        return on_channels_first(lambda x: norm(F.conv3d(x, conv.weight, conv.bias, stride)), features)


@dataclass(frozen=True)
class BlockFeatures:
    """What one block computed on a timeline, stored for the ends of the clips.

    Features are those behind the left margin of the first clip, shape (1, L, H, W, C).
    """

    block: Block
    margins: Margins  # of the clips where they enter the block
    features: torch.Tensor  # input
    spatial: tuple[torch.Tensor, ...]  # outputs of the spatial halves; from the second on, those of one phase
    entry: NDArray[np.int64]  # where the clips begin in the timeline of the input and the first spatial output, (n,)
    exit: NDArray[np.int64]  # where they begin in the timeline of the other spatial outputs and the output, (n,)

    def select(self, clips: NDArray[np.int64]) -> BlockFeatures:
        """Keep some of the clips."""
        return replace(self, entry=self.entry[clips], exit=self.exit[clips])

    def run_ends(self, ends: torch.Tensor | None, batch: NDArray[np.int64]) -> torch.Tensor:
        """Compute the margins of clips behind the block from those in front of it, (b, left + right, H, W, C)."""
        margins, positions, hidden = self.margins, self.entry[batch], ends
        for number, (pair, timeline) in enumerate(zip(self.block.pairs, self.spatial)):
            if number:
                hidden = F.relu_(cast(torch.Tensor, hidden))
            own = (
                timeline.new_empty(len(batch), 0, *timeline.shape[2:]) if hidden is None else pair.run_spatial(hidden)
            )
            hidden = run_temporal_ends(pair, own, timeline, positions, margins)
            margins, positions = margins.after(pair.stride), self.exit[batch]
        hidden = cast(torch.Tensor, hidden)
        if self.block.residual:
            hidden += self.block.shortcut(self._shortcut_ends(cast(torch.Tensor, ends), batch, margins))
        return F.relu_(hidden)

    def _shortcut_ends(self, ends: torch.Tensor, batch: NDArray[np.int64], after: Margins) -> torch.Tensor:
        """Take the input frames that the margins behind the block are added to, shape (b, left + right, H, W, C)."""
        before, stride, positions = self.margins, self.block.stride, self.entry[batch]
        inside = before.length - before.right
        frames = [*range(0, stride * after.left, stride)]
        frames += range(stride * (after.length - after.right), before.length, stride)
        left = [frame for frame in frames if frame < before.left]
        shared = [frame for frame in frames if before.left <= frame < inside]
        right = [before.left + frame - inside for frame in frames if frame >= inside]
        timeline = take(self.features, positions, np.array(shared) - before.left)
        return torch.cat([ends[:, left], timeline, ends[:, right]], dim=1)


@dataclass(frozen=True)
class SharedClips:
    """Clips that share a timeline to the last shared block, whose ends are still to be computed."""

    clips: NDArray[np.int64]  # which clips of the group, (n,)
    positions: NDArray[np.int64]  # where they begin in the timeline, (n,)
    margins: Margins
    features: torch.Tensor  # output of the last shared block on the timeline, (1, L, H, W, C)
    stored: tuple[BlockFeatures, ...]  # of every shared block

    def assemble(self, batch: NDArray[np.int64]) -> torch.Tensor:
        """Put the ends of some clips around their interior on the timeline, (b,) -> (b, T, H, W, C)."""
        ends: torch.Tensor | None = None
        for features in self.stored:
            ends = features.run_ends(ends, batch)
        ends = cast(torch.Tensor, ends)
        left = self.margins.left
        interior = take(self.features, self.positions[batch], np.arange(self.margins.interior))
        return torch.cat([ends[:, :left], interior, ends[:, left:]], dim=1)


def run_timeline(
    features: torch.Tensor,
    positions: NDArray[np.int64],
    margins: Margins,
    blocks: Sequence[Block],
    clips: NDArray[np.int64] | None = None,
    stored: tuple[BlockFeatures, ...] = (),
) -> Iterator[SharedClips]:
    """Run blocks on a timeline of clips that begin at `positions`; every temporal stride may part them.

    `features` is what the timeline holds between the margins of its first and last clip, shape (1, L, H, W, C).
    """
    clips = np.arange(len(positions)) if clips is None else clips
    if not blocks:
        yield SharedClips(clips, positions, margins, features, stored)
        return
    block = blocks[0]
    first_spatial = block.pairs[0].run_spatial(features)
    for phase in split_phases(positions, block.stride):
        inside, extent = margins.after(block.stride), int(phase.positions[-1])
        begin = phase.offset + block.stride * inside.left - 1 - margins.left
        count = block.stride * (extent + inside.interior - 1) + 3
        hidden, spatial = block.pairs[0].run_temporal(first_spatial[:, begin : begin + count]), [first_spatial]
        for pair in block.pairs[1:]:
            spatial.append(pair.run_spatial(F.relu_(hidden)))
            hidden, inside = pair.run_temporal(spatial[-1]), inside.after(1)
        if block.residual:
            begin = phase.offset + block.stride * inside.left - margins.left
            taken = features[:, begin :: block.stride][:, : extent + inside.interior]
            hidden += block.shortcut(taken)
        own = BlockFeatures(block, margins, features, tuple(spatial), positions[phase.clips], phase.positions)
        kept = (*(earlier.select(phase.clips) for earlier in stored), own)
        yield from run_timeline(
            F.relu_(hidden), phase.positions, inside, blocks[1:], clips=clips[phase.clips], stored=kept
        )


def run_temporal_ends(
    pair: Pair, own: torch.Tensor, timeline: torch.Tensor, positions: NDArray[np.int64], margins: Margins
) -> torch.Tensor:
    """Run the temporal half of a pair near both ends of clips, with the zeros that it sees there."""
    after, stride = margins.after(pair.stride), pair.stride
    inside = margins.length - margins.right
    zero = own.new_zeros(len(own), 1, *own.shape[2:])
    shared = np.arange(margins.left, stride * (after.left - 1) + 2) - margins.left
    ends = [pair.run_temporal(torch.cat([zero, own[:, : margins.left], take(timeline, positions, shared)], dim=1))]
    if after.right:
        shared = np.arange(stride * (after.length - after.right) - 1, inside) - margins.left
        parts = [take(timeline, positions, shared), own[:, margins.left :]]
        if stride * (after.length - 1) + 1 == margins.length:
            parts.append(zero)
        ends.append(pair.run_temporal(torch.cat(parts, dim=1)))
    return torch.cat(ends, dim=1)


def take(timeline: torch.Tensor, positions: NDArray[np.int64], frames: NDArray[np.int64]) -> torch.Tensor:
    """Copy the same frames of every clip from a timeline."""
    index = torch.from_numpy((positions[:, None] + frames).reshape(-1).astype(np.int64)).to(timeline.device)
    return timeline[0].index_select(0, index).view(len(positions), len(frames), *timeline.shape[2:])


def on_channels_first(run: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """Run a function of (n, C, t, H, W) on features of shape (n, t, H, W, C), which are the same memory."""
    result = run(features.permute(0, 4, 1, 2, 3))  # (n, t, H, W, C) -> (n, C, t, H, W)
    return result.permute(0, 2, 3, 4, 1).contiguous()
