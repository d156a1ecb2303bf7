"""Embeddings of the overlapping clips of one video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...model.clip_sampling_echomen import parse_protocol
from ...model.float32_precision_echomen import float32_precision
from ...model.modeling_echomen import EchoMENModel
from ...model.r2plus1d_echomen import R2Plus1DEncoder
from ..engines.engine import Engine, is_echomen
from ..engines.export_folder import ExportedEncoder
from ..engines.factory import make_engine
from ..engines.torch_engine import CONVOLUTIONS, TorchEngine
from .sharing_plan import (
    ClipGroup,
    Margins,
    WindowCost,
    choose_shared_blocks,
    encoder_costs,
    group_clips,
    stem_and_blocks,
    window_cost,
)
from .timeline_encoding import Block, run_timeline


__all__ = ["SharedWindows", "has_overlapping_clips", "windows_of_engine", "windows_of_model"]


class SharedWindows:
    """Encodes the overlapping clips of one video together, with the work they have in common done once.

    The results differ from those of single clips by rounding only. The drawing in `echomen_hf.inference.windows` shows
    how it works. The encoder must be in evaluation mode, since batch statistics would mix clips. Its batch
    normalisation may be folded. Activations have their channels last in memory.

    Args:
        encoder: Encoder in evaluation mode, on the device to run on.
        batch_size: Clips whose ends and remaining blocks are computed together.
        max_frames: Frames that one timeline may have, which bounds memory: at full size in single precision, each
            needs about 14 MB. A longer timeline is computed in parts that overlap by one frame less than a clip has.
        convolutions: Arithmetic of convolutions in single precision on CUDA, see `float32_precision`.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        encoder: R2Plus1DEncoder,
        batch_size: int = 4,
        max_frames: int = 96,
        convolutions: str | None = "ieee",
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_frames", max_frames)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.encoder = encoder
        self.batch_size = batch_size
        self.max_frames = max_frames
        self.convolutions = convolutions

    def cost(self, starts: NDArray[np.int64], frame_offsets: NDArray[np.int64], height: int, width: int) -> WindowCost:
        """Count the operations on the clips of a video with and without sharing.

        Args:
            starts: First source frame of every clip, shape (n,).
            frame_offsets: Source frames of a clip counted from its start, shape (T,).
            height: Height of a frame in pixels.
            width: Width of a frame in pixels.

        Returns:
            Floating point operations of both ways.
        """
        return window_cost(self.encoder, starts, frame_offsets, height, width, self.max_frames)

    @torch.inference_mode()
    def __call__(
        self,
        frames: torch.Tensor,
        starts: NDArray[np.int64],
        frame_offsets: NDArray[np.int64],
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Encode the clips of a video.

        Args:
            frames: Normalised frames of the whole video, shape (N, C, H, W), on any device; or, with `prepare`, what
                it makes them of.
            starts: First source frame of every clip, in [0, N), shape (n,).
            frame_offsets: Source frames of a clip counted from its start, not decreasing, shape (T,); see
                `ClipSpec.frame_offsets`. Frames past the end of the video are zeros, the mean after normalisation.
            prepare: Function that normalises frames. It gets no more of them at a time than a timeline or a batch of
                clips has, so that a long video need not be held in floating point.

        Returns:
            Embeddings in the order of the starts, at least single precision, shape (n, D).

        Raises:
            ValueError: If the encoder is in training mode, or frames or starts do not fit.
        """
        with float32_precision(self.convolutions):
            return self._encode(frames, starts, frame_offsets, prepare)

    def _encode(
        self,
        frames: torch.Tensor,
        starts: NDArray[np.int64],
        frame_offsets: NDArray[np.int64],
        prepare: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> torch.Tensor:
        if self.encoder.training:
            raise ValueError("Clips can share work in evaluation mode only: call `eval()` on the model first.")
        starts, frame_offsets = np.asarray(starts, np.int64), np.asarray(frame_offsets, np.int64)
        if not len(starts) or starts.min() < 0 or starts.max() >= len(frames):
            raise ValueError(f"`starts` must be at least one frame number in [0, {len(frames)}), got {starts}.")
        take = partial(self._take, frames, prepare)
        height, width = frames.shape[-2:]
        costs = encoder_costs(self.encoder, height, width)
        alone: list[ClipGroup] = []
        encoded: list[tuple[NDArray[np.int64], torch.Tensor]] = []
        for group in group_clips(starts, frame_offsets, self.max_frames):
            num_shared = choose_shared_blocks(costs, group)[0]
            if num_shared:
                encoded.extend(self._encode_group(take(group.frames), group, num_shared))
            else:
                alone.append(group)
        ungrouped = np.concatenate([group.clips for group in alone]) if alone else np.array([], np.int64)
        for first in range(0, len(ungrouped), self.batch_size):
            batch = ungrouped[first : first + self.batch_size]
            windows = take(starts[batch, None] + frame_offsets)  # (b, T, H, W, C)
            encoded.append((batch, self._finish(windows, stem_and_blocks(self.encoder))))
        order = torch.from_numpy(np.argsort(np.concatenate([clips for clips, _ in encoded])))
        embeddings = torch.cat([embeddings for _, embeddings in encoded])
        return embeddings[order.to(embeddings.device)]

    def _take(
        self,
        frames: torch.Tensor,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None,
        indices: NDArray[np.int64],
    ) -> torch.Tensor:
        """Take frames out of a video, shape (*indices.shape, H, W, C), zeros past its end."""
        index = torch.from_numpy(indices).flatten()
        taken = frames[index.clamp(max=len(frames) - 1).to(frames.device)]
        if prepare is not None:
            taken = prepare(taken)
        first = cast(nn.Conv3d, self.encoder.stem[0])
        if taken.ndim != 4 or taken.shape[1] != first.in_channels:
            raise ValueError(
                f"Frames must have shape (N, {first.in_channels}, height, width), got {tuple(taken.shape)}."
            )
        taken = taken.to(first.weight.device, first.weight.dtype)
        taken = taken.permute(0, 2, 3, 1).contiguous()  # (n, C, H, W) -> (n, H, W, C)
        taken[(index >= len(frames)).to(taken.device)] = 0
        return taken.view(*indices.shape, *taken.shape[1:])

    def _encode_group(
        self, timeline: torch.Tensor, group: ClipGroup, num_shared: int
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        modules = stem_and_blocks(self.encoder)
        blocks = [Block.of(module) for module in modules[:num_shared]]
        margins = Margins(len(group.frames) - int(group.positions[-1]))
        for shared in run_timeline(timeline.unsqueeze(0), group.positions, margins, blocks):
            for first in range(0, len(shared.positions), self.batch_size):
                batch = np.arange(first, min(first + self.batch_size, len(shared.positions)))
                yield group.clips[shared.clips[batch]], self._finish(shared.assemble(batch), modules[num_shared:])

    def _finish(self, windows: torch.Tensor, modules: Sequence[nn.Module]) -> torch.Tensor:
        hidden_state = windows.permute(0, 4, 1, 2, 3)  # (b, T, H, W, C) -> (b, C, T, H, W)
        for module in modules:
            hidden_state = module(hidden_state)
        dtype = torch.promote_types(hidden_state.dtype, torch.float32)
        return hidden_state.mean(dim=(2, 3, 4), dtype=dtype)  # (b, C, T, H, W) -> (b, D)


def has_overlapping_clips(protocol: str | int) -> bool:
    """Find out whether the clips of a test protocol overlap regularly, as those of `all` and `everyN` do."""
    return parse_protocol(protocol).startswith(("all", "every"))


def windows_of_engine(
    engine: Engine | None, protocol: str, batch_size: int, share_windows: bool | None
) -> SharedWindows | None:
    """Make what encodes clips together, in the precision of an engine; `None` if each clip runs on its own.

    With `share_windows=None`, clips share work where that is known to be faster, which is on CPUs.
    """
    if not isinstance(engine, TorchEngine):
        if share_windows:
            name = TorchEngine.name if engine is None else engine.name
            other = "a network of another architecture" if name == TorchEngine.name else f"engine {name!r}"
            raise ValueError(f"Clips can share work with the engine 'torch' only, not with {other}; leave it out.")
        return None
    if share_windows is None:
        share_windows = engine.encoder.encoder.stem[0].weight.device.type == "cpu"
    if not share_windows or not has_overlapping_clips(protocol):
        return None
    return SharedWindows(engine.encoder.encoder, batch_size, convolutions=CONVOLUTIONS[engine.precision])


def windows_of_model(
    model: EchoMENModel, protocol: str, batch_size: int, share_windows: bool | None = None
) -> SharedWindows | None:
    """Make what encodes clips together for a model that has no engine yet, see `windows_of_engine`."""
    if share_windows is False or not has_overlapping_clips(protocol):
        return None
    engine: Engine | None = None
    if isinstance(encoder := getattr(model, "encoder", None), ExportedEncoder):
        engine = encoder.engine
    elif is_echomen(model):
        engine = make_engine(model, "torch")
    return windows_of_engine(engine, protocol, batch_size, share_windows)
