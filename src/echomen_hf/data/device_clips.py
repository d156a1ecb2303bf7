"""Clips that travel as 8-bit frames and become normalised floating point numbers on the device that trains.

A clip of 32 frames of 112 x 112 pixels takes 0.4 MB in this form, and 4.8 MB per view as input of the model. Decoding
processes, shared memory and the transfer to a GPU carry the small form; the device crops and normalises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["CLIP_FIELDS", "HOST_FIELDS", "pack_clip", "random_shift", "with_pixel_values"]

_NORMALISATION = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "num_channels")
_remembered_levels: WeakKeyDictionary[Any, tuple[str, torch.Tensor]] = WeakKeyDictionary()

HOST_FIELDS = ("valid_frames", "grey_levels", "shifts")
"""Fields of a packed clip that say what to do with its frames. A batch has them as NumPy arrays, which no loader moves
to the device: to read them there, the processor would have to wait for the device."""

CLIP_FIELDS = ("frames", *HOST_FIELDS)
"""Fields of a packed clip, see `pack_clip`."""


def pack_clip(
    frames: NDArray[np.uint8], processor: EchoMENVideoProcessor, shifts: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Put together everything that the normalised clip follows from.

    Args:
        frames: Frames of the clip that the video has, resized, uint8, shape (K, H, W).
        processor: Video processor.
        shifts: Pixels by which the window of each view lies below and to the right of the frame, int64, shape (2,), or
            (views, 2) for several views. Defaults to no shift.

    Returns:
        `frames`, uint8, (T, H, W), padded to the length of a clip; `valid_frames`, int64, (), the number of real
            frames; `grey_levels`, float32, (C, 256), each channel's normalisation of every grey level; and `shifts` if
            given.
    """
    missing = processor.num_frames - len(frames)
    if missing > 0:
        padded = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), dtype=np.uint8)])
    else:
        padded = np.ascontiguousarray(frames)
    clip = {
        "frames": torch.from_numpy(padded),
        "valid_frames": torch.tensor(len(frames)),
        "grey_levels": grey_levels(processor),
    }
    return clip if shifts is None else {**clip, "shifts": shifts}


def grey_levels(processor: EchoMENVideoProcessor) -> torch.Tensor:
    """Normalised value of every grey level from 0 to 255, float32, shape (C, 256)."""
    settings = repr([getattr(processor, name) for name in _NORMALISATION])
    remembered = _remembered_levels.get(processor)
    if remembered is None or remembered[0] != settings:
        levels = processor.normalize_frames(torch.arange(256, dtype=torch.uint8).view(-1, 1, 1))  # (256, C, 1, 1)
        remembered = _remembered_levels[processor] = (settings, levels.flatten(1).T.contiguous())
    return remembered[1]


def random_shift(padding: int, generator: np.random.Generator) -> torch.Tensor:
    """Pixels, at most `padding`, by which a window lies below and to the right of the frame, int64, shape (2,)."""
    return torch.from_numpy(generator.integers(0, 2 * padding + 1, size=2) - padding)


def with_pixel_values(batch: Mapping[str, Any], device: torch.device | str | None = None) -> dict[str, Any]:
    """Unpack the clips of a batch: normalise them, repeat channels, and cut out the window of each view.

    What lies outside a frame, before or after the clip's own frames, is zero, the mean of the training set.

    Args:
        batch: Batch of `pack_clip`, perhaps with other fields. Any other batch is returned as it is.
        device: Device of `pixel_values`. Defaults to that of the frames.

    Returns:
        The other fields of the batch, and `pixel_values`, float32, (B, T, C, H, W), or (B, views, T, C, H, W).
    """
    if "frames" not in batch or "grey_levels" not in batch:
        return dict(batch)
    frames: torch.Tensor = batch["frames"].to(device, non_blocking=True)  # which overlaps from pinned memory
    levels, valid_frames = torch.as_tensor(batch["grey_levels"]), torch.as_tensor(batch["valid_frames"]).tolist()
    shifts = None if "shifts" not in batch else torch.as_tensor(batch["shifts"])
    has_views = shifts is not None and shifts.ndim == 3
    windows = [[[0, 0]]] * len(frames) if shifts is None else shifts.view(len(frames), -1, 2).tolist()
    height, width = frames.shape[-2:]
    # Channels with the same numbers are one in memory.
    num_channels = levels.shape[1]
    if (levels == levels[:, :1]).all():
        levels = levels[:, :1]
    # One table of the grey levels of all clips, (C, B * 256), and the places in it, int32, (B, T, H, W).
    table = levels.transpose(0, 1).flatten(1).to(frames.device, non_blocking=True)
    places = frames.int() + 256 * torch.arange(len(frames), dtype=torch.int32, device=frames.device).view(-1, 1, 1, 1)
    clips = table.new_zeros(len(frames), len(windows[0]), frames.shape[1], levels.shape[1], height, width)
    for channel in range(levels.shape[1]):
        values = table[channel].index_select(0, places.flatten()).view_as(frames)  # (B, T, H, W)
        for clip, value, valid, views in zip(clips, values, valid_frames, windows):
            for view, (down, right) in zip(clip, views):
                (to_rows, from_rows), (to_columns, from_columns) = overlap(down, height), overlap(right, width)
                view[:valid, channel, to_rows, to_columns] = value[:valid, from_rows, from_columns]
    others = {name: value for name, value in batch.items() if name not in CLIP_FIELDS}
    clips = clips.expand(-1, -1, -1, num_channels, -1, -1)
    return {"pixel_values": clips if has_views else clips.squeeze(1), **others}


def overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Pixels that a window, shifted along a line of the same size, shares with it: as slices of window and line."""
    shared = max(size - abs(shift), 0)
    first = max(shift, 0)
    return slice(first - shift, first - shift + shared), slice(first, first + shared)
