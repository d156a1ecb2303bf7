"""Frames decoded from video files on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model.echo_video_echomen import EchoVideo, cut_out_sector, with_fan
from ..model.sector_echomen import Sector, is_data_set_clip, sector_frames
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
        video = self._decoded(row, indices)
        is_screen = video.whole is not None or not is_data_set_clip(*video.frames.shape[1:])
        if self.processor.do_find_sector and is_screen:
            video = cut_out_sector(video, self._sector(row, video, indices is None))
        return self.processor.resize_frames(video.frames).numpy()

    def _decoded(self, row: dict[str, Any], indices: NDArray[np.int64] | None) -> EchoVideo:
        numbers = None if indices is None else indices.tolist()
        return read_video(row["video"], indices=numbers, decoder=self.decoder, measure_colour=False)

    def _sector(self, row: dict[str, Any], video: EchoVideo, is_all: bool) -> Sector:
        """Sector of all of a video, whichever frames of it are asked for."""
        name = row["file_name"]
        if name not in self._sectors:
            if not is_all:
                num_frames = row.get("num_frames") or probe_video(row["video"]["path"]).num_frames
                video = self._decoded(row, sector_frames(int(num_frames)))
            self._sectors[name] = with_fan(video)[1]
        return self._sectors[name]
