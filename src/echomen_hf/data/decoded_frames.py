"""Frames of videos, decoded from their files when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model.video_reading_echomen import read_video, require_decoder


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["DecodedFrames"]


class DecodedFrames:
    """Reads frames from video files and resizes them; `FrameCache` gives the same frames without decoding again.

    Args:
        processor: Video processor that resizes and crops.
        decoder: See `read_video`.

    Raises:
        VideoReadError: If the decoder is not installed or does not work.
    """

    def __init__(self, processor: EchoMENVideoProcessor, decoder: str = "pyav") -> None:
        require_decoder(decoder)
        self.processor = processor
        self.decoder = decoder

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Decode frames of one video, and no more of it than that needs.

        Args:
            row: Row as `load_echonet_dynamic` gives it.
            indices: Frames to read, ascending, shape (K,); all without.

        Returns:
            Frames, uint8, shape (K, height, width) of the processor.

        Raises:
            VideoReadError: If the file cannot be read, or ends before the last of the frames.
        """
        numbers = None if indices is None else indices.tolist()
        video = read_video(row["video"], indices=numbers, decoder=self.decoder, measure_colour=False)
        return self.processor.resize_frames(video.frames).numpy()
