"""Collection of the wanted frames of a clip while a decoder runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .video_source_echomen import VideoReadError


__all__ = ["DEFAULT_MAX_BYTES", "FrameCollector", "clearly_fewer"]

DEFAULT_MAX_BYTES = 2**31
"""Most bytes of grayscale frames that one call decodes: 40 s of 1024x768 at 60 frames per second."""


def clearly_fewer(found: int, promised: int) -> bool:
    """Whether a clip must be damaged: one missing frame, or 2 %, is forgiven, since a codec may swallow the last."""
    return promised - found > max(1, 0.02 * promised)


class FrameCollector:
    """Keeps the wanted frames while a decoder runs, then settles what a shortfall means.

    Args:
        name: File name for messages.
        indices: Frame numbers to return, in this order, repeats allowed; `None` keeps every frame.
        expected: Number of frames that the header promises; 0 if it does not say.
        allow_truncated: Warn instead of raising when the file ends early.
        max_bytes: Most bytes of frames to keep.
    """

    def __init__(
        self, name: str, indices: Sequence[int] | None, expected: int, *, allow_truncated: bool, max_bytes: int
    ) -> None:
        self.name = name
        self.expected = expected
        self.allow_truncated = allow_truncated
        self.max_bytes = max_bytes
        self.order = None if indices is None else [int(index) for index in indices]
        if self.order is not None and (not self.order or min(self.order) < 0):
            raise ValueError(f"indices must hold frame numbers from 0 on, at least one, got {self.order}.")
        self.wanted = None if self.order is None else set(self.order)
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._stack: NDArray[np.uint8] | None = None  # of wanted frames, as they came
        self._shape: tuple[int, ...] | None = None
        if expected and self.last is not None and self.last >= expected:
            raise self._beyond_end(expected)

    @property
    def last(self) -> int | None:
        """Highest wanted frame number; `None` when every frame is."""
        return None if self.wanted is None else max(self.wanted)

    @property
    def complete(self) -> bool:
        """Whether nothing more needs to be decoded."""
        return self.wanted is not None and self.wanted <= self._kept.keys()

    def is_wanted(self, index: int) -> bool:
        """Whether the frame with this number will be returned."""
        return self.wanted is None or index in self.wanted

    def add(self, index: int, frame: NDArray[np.uint8]) -> None:
        """Keep a copy of one frame, uint8, shape (height, width)."""
        self.room(index, frame.shape)[...] = frame

    def room(self, index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory for one frame, which the caller must fill."""
        size = math.prod(shape)
        if self._shape is None:
            self._shape = shape
            if self.wanted is not None:
                room = min(len(self.wanted), self.max_bytes // size)
                self._stack = np.empty((room, *shape), dtype=np.uint8)
        elif shape != self._shape:
            raise VideoReadError.about(
                self.name,
                f"changes its frame size from {self._shape} to {shape} at frame {index}",
                "export the clip again as one video",
            )
        position = len(self._kept)
        if (position + 1) * size > self.max_bytes:
            raise VideoReadError.about(
                self.name,
                f"holds more than {self.max_bytes} bytes of frames",
                "cut the clip to a few heart beats, ask for single frames with `indices`, or raise `max_bytes`",
            )
        kept = np.empty(shape, dtype=np.uint8) if self._stack is None else self._stack[position]
        self._kept[index] = kept
        return kept

    def finish(self, num_decoded: int, last_frame: NDArray[np.uint8] | None, failure: str = "") -> NDArray[np.uint8]:
        """Stack the frames in the order asked for.

        Frames that the header promises but the file does not hold repeat the last one: one or two, which a codec may
        swallow, silently; more only with `allow_truncated`.

        Args:
            num_decoded: Number of frames that could be decoded before the decoder stopped.
            last_frame: The last of them.
            failure: Why decoding stopped early, if it did.
        """
        if last_frame is None:
            raise VideoReadError.about(
                self.name, f"holds no frame that can be decoded{_because(failure)}", "copy or export it again"
            )
        if not self.complete:
            self._settle_shortfall(num_decoded, failure)
        if self._stack is not None and self.order == list(self._kept):
            return self._stack
        order = range(num_decoded) if self.order is None else self.order
        return np.stack([self._kept.get(index, last_frame) for index in order])  # (T, H, W)

    def _settle_shortfall(self, num_decoded: int, failure: str) -> None:
        promised = max(self.expected, num_decoded)
        if failure or clearly_fewer(num_decoded, promised):
            of_promised = f" of the {self.expected} that its header promises" if self.expected else ""
            problem = (
                f"is damaged or cut off: only {num_decoded} frames{of_promised} can be decoded{_because(failure)}"
            )
            if not self.allow_truncated:
                remedy = "copy it again from its origin, or pass allow_truncated=True to use what is there"
                raise VideoReadError.about(self.name, problem, remedy)
            warnings.warn(f"{self.name}: {problem}; using what is there.", stacklevel=4)
        elif self.last is not None and self.last >= promised:
            raise self._beyond_end(num_decoded)

    def _beyond_end(self, num_frames: int) -> VideoReadError:
        return VideoReadError.about(
            self.name,
            f"has {num_frames} frames, but frame {self.last} was asked for (numbers start at 0)",
            "ask for frames that exist; if the number comes from FileList.csv, correct NumberOfFrames there",
        )


def _because(failure: str) -> str:
    return f" ({failure})" if failure else ""
