"""Collection of the wanted frames of a clip, and what a clip with too few frames means."""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .echo_video_echomen import require_frame_size
from .video_source_echomen import VideoReadError


__all__ = ["DEFAULT_MAX_BYTES", "FrameCollector", "clearly_fewer", "frame_numbers", "frames_to_read"]

DEFAULT_MAX_BYTES = 2**31
"""Most bytes of grayscale frames that one call decodes: 40 s of 1024x768 at 60 frames per second."""

_BLOCK_BYTES = 2**24


def clearly_fewer(found: int, promised: int) -> bool:
    """Whether a clip must be damaged: one missing frame, or 2 %, is forgiven, since a codec may swallow the last."""
    return promised - found > max(1, 0.02 * promised)


def frame_numbers(indices: Sequence[int] | None) -> list[int] | None:
    """Check the frame numbers that a caller asks for."""
    if indices is None:
        return None
    numbers = [int(index) for index in indices]
    if not numbers or min(numbers) < 0:
        raise ValueError(f"indices must hold frame numbers from 0 on, at least one, got {numbers}.")
    return numbers


def frames_to_read(
    name: str,
    indices: list[int] | None,
    found: int,
    promised: int = 0,
    *,
    allow_truncated: bool | None = None,
    failure: str = "",
) -> list[int] | None:
    """Settle what a shortfall means: the frame numbers to read, of those that are there.

    Frames that the header promises but the file does not hold repeat the last one: one or two, which a codec may
    swallow, silently; more only with `allow_truncated`.

    Args:
        name: File name for messages.
        indices: Wanted frame numbers; `None` for all.
        found: Number of frames that are there.
        promised: Number of frames that the header promises; 0 if it does not say.
        allow_truncated: Warn instead of raising when frames are missing; `None` where nobody can ask for that.
        failure: Why decoding stopped early, if it did.
    """
    because = f" ({failure})" if failure else ""
    if not found:
        raise VideoReadError.about(name, f"holds no frame that can be decoded{because}", "copy or export it again")
    last = found if indices is None else max(indices)
    if last < found:
        return indices
    if failure or clearly_fewer(found, promised):
        of_promised = f" of the {promised} that its header promises" if promised else ""
        problem = f"is damaged or cut off: only {found} frames{of_promised} can be decoded{because}"
        if not allow_truncated:
            remedy = "copy it again from its origin"
            if allow_truncated is not None:
                remedy += ", or use what is there in Python, by read_video(..., allow_truncated=True)"
            raise VideoReadError.about(name, problem, remedy)
        warnings.warn(f"{name}: {problem}; using what is there.", stacklevel=4)
    elif indices is not None and last >= max(found, promised):
        raise VideoReadError.about(
            name,
            f"has {max(found, promised)} frames, but frame {last} was asked for (numbers start at 0)",
            "ask for frames that exist; if the number comes from FileList.csv, correct NumberOfFrames there",
        )
    return None if indices is None else [min(index, found - 1) for index in indices]


class FrameCollector:
    """Keeps the wanted frames while a decoder runs.

    Args:
        name: File name for messages.
        order: Frame numbers to return, in this order, repeats allowed; `None` keeps every frame.
        max_bytes: Most bytes of frames to keep.
        expected: Number of frames that will probably come; 0 if that is not known.
    """

    def __init__(self, name: str, order: Sequence[int] | None, max_bytes: int, expected: int = 0) -> None:
        self.name = name
        self.wanted = None if order is None else set(order)
        self._order = order
        self._max_bytes = max_bytes
        self._expected = expected if order is None else len(order)
        self._position: dict[int, int] = {}  # of every kept frame, in the blocks
        self._blocks: list[NDArray[np.uint8]] = []
        self._shape: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing more needs to be decoded."""
        return self.wanted is not None and len(self._position) == len(self.wanted)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame; 0 before the first."""
        return math.prod(self._shape) if self._shape else 0

    def is_wanted(self, index: int) -> bool:
        """Whether the frame with this number will be returned."""
        return self.wanted is None or index in self.wanted

    def add(self, index: int, frame: NDArray[np.uint8]) -> None:
        """Keep a copy of one frame, uint8, shape (height, width)."""
        self.room(index, frame.shape)[...] = frame

    def room(self, index: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Memory for one frame, which the caller must fill."""
        if shape != (self._shape or shape):
            raise VideoReadError.about(
                self.name,
                f"changes its frame size from {self._shape} to {shape} at frame {index}",
                "export the clip again as one video",
            )
        if self._shape is None:
            require_frame_size(*shape, self.name)  # which may be more than is stored, where pixels are not square
        self._shape = shape
        position = len(self._position)
        self.require_room(position + 1)
        if not self._blocks:
            all_at_once = min(self._expected, self._max_bytes // self.frame_bytes)
            self._block_frames = all_at_once or max(1, _BLOCK_BYTES // self.frame_bytes)
            if all_at_once:
                self._blocks.append(np.empty((all_at_once, *shape), dtype=np.uint8))
        if position == len(self._blocks) * self._block_frames:
            # Memory that goes back to the system as soon as its block has been copied.
            block = np.frombuffer(mmap.mmap(-1, self._block_frames * self.frame_bytes), np.uint8)
            self._blocks.append(block.reshape(-1, *shape))
        self._position[index] = position
        return self._blocks[-1][position % self._block_frames]

    def require_room(self, num_frames: int) -> None:
        """Refuse a clip of so many frames if it is too large."""
        if num_frames * self.frame_bytes > self._max_bytes:
            raise VideoReadError.about(
                self.name,
                f"holds more than {self._max_bytes} bytes of frames",
                "cut the clip to a few heart beats, ask for single frames with `indices`, or raise `max_bytes`",
            )

    def finish(self, shown: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Frames in the order asked for, shape (len(order) or number of frames, height, width).

        Args:
            shown: Kept frame that every frame of the clip is, ascending, int64; `None` if they are the kept frames.
        """
        places = None if self._order is None else np.array([self._position[index] for index in self._order])
        places = shown if places is None else places
        num_kept = len(self._position)
        total = num_kept if places is None else max(num_kept, len(places))
        self.require_room(total)
        if len(self._blocks) == 1 and self._expected and total <= len(self._blocks[0]):
            frames = self._blocks[0][:total]
        else:
            frames = np.empty((total, *self._blocks[0].shape[1:]), dtype=np.uint8)
            for start in range(0, num_kept, self._block_frames):
                block = self._blocks.pop(0)  # so that its memory is free again
                frames[start : min(start + self._block_frames, num_kept)] = block[: num_kept - start]
        return frames if places is None else _rearranged(frames, places)


def _rearranged(frames: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames at some places, in their own memory if the places ascend: a copy would need as much again."""
    numbers = np.arange(len(places))
    if (np.diff(places) < 0).any():
        return frames[places]
    # First those that come from behind, then from the end those that come from before: nothing is needed later.
    for number in [*np.flatnonzero(places > numbers), *np.flatnonzero(places < numbers)[::-1]]:
        frames[number] = frames[places[number]]
    return frames[: len(places)]
