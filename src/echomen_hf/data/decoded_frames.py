"""Frames decoded from video files on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model.sector_echomen import Sector, find_sector, is_data_set_clip, sector_frames
from ..model.video_reading_echomen import probe_video, read_video, require_decoder


if TYPE_CHECKING:
    from ..model.video_processing_echomen import EchoMENVideoProcessor

__all__ = ["DecodedFrames"]


class DecodedFrames:
    """Reads frames from video files and resizes them; `FrameCache` returns the same frames without decoding again."""

    def __init__(self, processor: EchoMENVideoProcessor, decoder: str = "pyav") -> None:
        require_decoder(decoder)
        self.processor = processor
        self.decoder = decoder
        self._sectors: dict[str, Sector] = {}

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Decode frames `(K,)` of one video, uint8, shape (K, height, width); all if `indices` is `None`."""
        frames = self._decoded(row, indices)
        if self.processor.do_find_sector and not is_data_set_clip(*frames.shape[1:]):
            frames = self._sector(row, frames, indices is None).crop(frames)
        return self.processor.resize_frames(frames).numpy()

    def _decoded(self, row: dict[str, Any], indices: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        numbers = None if indices is None else indices.tolist()
        return read_video(row["video"], indices=numbers, decoder=self.decoder, measure_colour=False).frames

    def _sector(self, row: dict[str, Any], frames: NDArray[np.uint8], is_whole: bool) -> Sector:
        """Sector of the whole video, whichever frames of it are asked for."""
        name = row["file_name"]
        if name not in self._sectors:
            if not is_whole:
                num_frames = row.get("num_frames") or probe_video(row["video"]["path"]).num_frames
                frames = self._decoded(row, sector_frames(int(num_frames)))
            self._sectors[name] = find_sector(frames)
        return self._sectors[name]
