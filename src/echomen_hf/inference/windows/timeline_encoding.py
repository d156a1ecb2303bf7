"""The encoder on a timeline and at the ends of the clips that are windows of it, see `SharedWindows`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ...model.modeling_echomen import R2Plus1DBlock
from ..engines.planar_convolutions import PlanarTemporalConv, convolve_time
from .sharing_plan import Margins, split_phases


__all__ = ["Bundle", "Level", "Pair", "Piece", "run_timeline"]


@dataclass(frozen=True)
class Pair:
    """A factorised convolution: spatial convolution, ReLU, temporal convolution without its padding.

    Args:
        spatial: Spatial convolution.
        spatial_norm: Batch normalisation of its output, or what is left of it after folding.
        temporal: Temporal convolution.
        temporal_norm: Batch normalisation of its output, or what is left of it after folding.
    """

    spatial: nn.Conv3d
    spatial_norm: nn.Module
    temporal: nn.Conv3d
    temporal_norm: nn.Module

    @property
    def stride(self) -> int:
        """Temporal stride."""
        return self.temporal.stride[0]

    def middle(self, features: torch.Tensor) -> torch.Tensor:
        """Run the spatial half on features of shape (n, t, H, W, C), frame by frame."""
        return on_channels_first(lambda x: F.relu_(self.spatial_norm(self.spatial(x))), features)

    def end(self, middle: torch.Tensor) -> torch.Tensor:
        """Run the temporal half on features of shape (n, t, H, W, C), only where it sees 3 frames of them."""

        def convolve(x: torch.Tensor) -> torch.Tensor:
            run = convolve_time if isinstance(self.temporal, PlanarTemporalConv) else F.conv3d
            return self.temporal_norm(run(x, self.temporal.weight, self.temporal.bias, self.temporal.stride))

        return on_channels_first(convolve, middle)


@dataclass(frozen=True)
class Piece:
    """Stem or residual block, taken apart.

    Args:
        pairs: Factorised convolutions; a ReLU follows each.
        residual: Whether the input is added before the last ReLU.
        downsample: Convolution and normalisation of that input, if it changes size.
    """

    pairs: tuple[Pair, ...]
    residual: bool
    downsample: nn.Sequential | None

    @classmethod
    def of(cls, module: nn.Module) -> Piece:
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
class Level:
    """What one piece computed on a timeline, kept for the ends of the clips.

    Args:
        piece: The piece.
        margins: Margins of the clips where they enter the piece.
        features: Input, shape (1, L, H, W, C), from the first frame behind the first clip's left margin on.
        middles: Outputs of the spatial halves, in the same manner; from the second on, those of one phase.
        entry: Where the clips begin in the timeline of the input and of the first middle, shape (n,).
        exit: Where they begin in the timeline of the other middles and of the output, shape (n,).
    """

    piece: Piece
    margins: Margins
    features: torch.Tensor
    middles: tuple[torch.Tensor, ...]
    entry: NDArray[np.int64]
    exit: NDArray[np.int64]

    def select(self, clips: NDArray[np.int64]) -> Level:
        """Keep some of the clips."""
        return replace(self, entry=self.entry[clips], exit=self.exit[clips])

    def run_ends(self, ends: torch.Tensor | None, batch: NDArray[np.int64]) -> torch.Tensor:
        """Compute the ends of clips behind the piece."""
        margins, positions, hidden = self.margins, self.entry[batch], ends
        for number, (pair, middle) in enumerate(zip(self.piece.pairs, self.middles)):
            if number:
                hidden = F.relu_(cast(torch.Tensor, hidden))
            own = middle.new_empty(len(batch), 0, *middle.shape[2:]) if hidden is None else pair.middle(hidden)
            hidden = run_temporal_ends(pair, own, middle, positions, margins)
            margins, positions = margins.after(pair.stride), self.exit[batch]
        hidden = cast(torch.Tensor, hidden)
        if self.piece.residual:
            hidden += self.piece.shortcut(self._shortcut_ends(cast(torch.Tensor, ends), batch, margins))
        return F.relu_(hidden)

    def _shortcut_ends(self, ends: torch.Tensor, batch: NDArray[np.int64], after: Margins) -> torch.Tensor:
        """Take the input frames that the margins behind the piece are added to, shape (b, left + right, H, W, C)."""
        before, stride, positions = self.margins, self.piece.stride, self.entry[batch]
        inside = before.length - before.right
        frames = [*range(0, stride * after.left, stride)]
        frames += range(stride * (after.length - after.right), before.length, stride)
        left = [frame for frame in frames if frame < before.left]
        shared = [frame for frame in frames if before.left <= frame < inside]
        right = [before.left + frame - inside for frame in frames if frame >= inside]
        timeline = take(self.features, positions, np.array(shared) - before.left)
        return torch.cat([ends[:, left], timeline, ends[:, right]], dim=1)


@dataclass(frozen=True)
class Bundle:
    """Clips of one timeline whose ends are still to be computed.

    Args:
        clips: Which clips of the group, shape (n,).
        positions: Where they begin in the timeline, shape (n,).
        margins: Their margins.
        features: Output of the last piece on the timeline, shape (1, L, H, W, C).
        levels: What every piece left behind for the ends.
    """

    clips: NDArray[np.int64]
    positions: NDArray[np.int64]
    margins: Margins
    features: torch.Tensor
    levels: tuple[Level, ...]

    def assemble(self, batch: NDArray[np.int64]) -> torch.Tensor:
        """Compute the ends of some clips and put them around what the timeline holds of these clips."""
        ends: torch.Tensor | None = None
        for level in self.levels:
            ends = level.run_ends(ends, batch)
        ends = cast(torch.Tensor, ends)
        left = self.margins.left
        interior = take(self.features, self.positions[batch], np.arange(self.margins.interior))
        return torch.cat([ends[:, :left], interior, ends[:, left:]], dim=1)


def run_timeline(
    features: torch.Tensor,
    positions: NDArray[np.int64],
    margins: Margins,
    pieces: Sequence[Piece],
    clips: NDArray[np.int64] | None = None,
    levels: tuple[Level, ...] = (),
) -> Iterator[Bundle]:
    """Run pieces of the encoder on a timeline."""
    clips = np.arange(len(positions)) if clips is None else clips
    if not pieces:
        yield Bundle(clips, positions, margins, features, levels)
        return
    piece = pieces[0]
    first_middle = piece.pairs[0].middle(features)
    for phase in split_phases(positions, piece.stride):
        inside, extent = margins.after(piece.stride), int(phase.positions[-1])
        begin = phase.offset + piece.stride * inside.left - 1 - margins.left
        count = piece.stride * (extent + inside.interior - 1) + 3
        hidden, middles = piece.pairs[0].end(first_middle[:, begin : begin + count]), [first_middle]
        for pair in piece.pairs[1:]:
            middles.append(pair.middle(F.relu_(hidden)))
            hidden, inside = pair.end(middles[-1]), inside.after(1)
        if piece.residual:
            begin = phase.offset + piece.stride * inside.left - margins.left
            taken = features[:, begin :: piece.stride][:, : extent + inside.interior]
            hidden += piece.shortcut(taken)
        level = Level(piece, margins, features, tuple(middles), positions[phase.clips], phase.positions)
        kept = (*(earlier.select(phase.clips) for earlier in levels), level)
        yield from run_timeline(
            F.relu_(hidden), phase.positions, inside, pieces[1:], clips=clips[phase.clips], levels=kept
        )


def run_temporal_ends(
    pair: Pair, own: torch.Tensor, timeline: torch.Tensor, positions: NDArray[np.int64], margins: Margins
) -> torch.Tensor:
    """Run the temporal half of a pair near both ends of clips, with the zeros that it sees there."""
    after, stride = margins.after(pair.stride), pair.stride
    inside = margins.length - margins.right
    zero = own.new_zeros(len(own), 1, *own.shape[2:])
    shared = np.arange(margins.left, stride * (after.left - 1) + 2) - margins.left
    ends = [pair.end(torch.cat([zero, own[:, : margins.left], take(timeline, positions, shared)], dim=1))]
    if after.right:
        shared = np.arange(stride * (after.length - after.right) - 1, inside) - margins.left
        parts = [take(timeline, positions, shared), own[:, margins.left :]]
        if stride * (after.length - 1) + 1 == margins.length:
            parts.append(zero)
        ends.append(pair.end(torch.cat(parts, dim=1)))
    return torch.cat(ends, dim=1)


def take(timeline: torch.Tensor, positions: NDArray[np.int64], frames: NDArray[np.int64]) -> torch.Tensor:
    """Copy the same frames of every clip from a timeline."""
    index = torch.from_numpy((positions[:, None] + frames).reshape(-1).astype(np.int64)).to(timeline.device)
    return timeline[0].index_select(0, index).view(len(positions), len(frames), *timeline.shape[2:])


def on_channels_first(run: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """Run a function of (n, C, t, H, W) on features of shape (n, t, H, W, C), which are the same memory."""
    result = run(features.permute(0, 4, 1, 2, 3))  # (n, t, H, W, C) -> (n, C, t, H, W)
    return result.permute(0, 2, 3, 4, 1).contiguous()
