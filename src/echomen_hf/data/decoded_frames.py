"""Frames decoded from video files on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model.video_reading_echomen import read_video, require_decoder


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["DecodedFrames"]


class DecodedFrames:
    """Reads frames from video files and resizes them; `FrameCache` returns the same frames without decoding again."""

    def __init__(self, processor: EchoMENVideoProcessor, decoder: str = "pyav") -> None:
        require_decoder(decoder)
        self.processor = processor
        self.decoder = decoder

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Decode frames `(K,)` of one video, uint8, shape (K, height, width); all if `indices` is `None`."""
        numbers = None if indices is None else indices.tolist()
        video = read_video(row["video"], indices=numbers, decoder=self.decoder, measure_colour=False)
        return self.processor.resize_frames(video.frames).numpy()
