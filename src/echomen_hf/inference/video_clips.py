"""Clips that a test protocol takes from a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..data.clip_dataset import FrameSource, video_length_and_rate
from ..data.decoded_frames import DecodedFrames
from ..model.clip_quality_echomen import Finding
from ..model.clip_sampling_echomen import ClipSpec, clip_indices, protocol_starts
from ..model.echo_video_echomen import EchoVideo
from ..model.video_processing_echomen import EchoMENVideoProcessor


if TYPE_CHECKING:
    from ..outline import VideoOutline

__all__ = ["ClipsOfSplit", "VideoClips"]


class VideoClips:
    """Clips of one video, each made when it is asked for; only the resized frames that they need are kept.

    Args:
        name: Name of the video.
        num_frames: Frames in the video.
        fps: Frames per second of the video.
        spec: Length and spacing of a clip.
        protocol: Which clips to take, see `protocol_starts`.
        read: Function that reads the frames of some numbers, resized, uint8, (K,) -> (K, H, W).
        findings: What speaks against an estimate of the video, from `inspect_clip`.
        outline: Outline of the left ventricle, if it was asked for.
    """

    def __init__(
        self,
        name: str,
        num_frames: int,
        fps: float,
        spec: ClipSpec,
        protocol: str,
        read: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
        findings: Sequence[Finding] = (),
        outline: VideoOutline | None = None,
    ) -> None:
        self.findings, self.outline = findings, outline
        self.name, self.num_frames, self.fps, self.spec = name, num_frames, fps, spec
        systoles = None if outline is None else [beat.es_frame for beat in outline.beats]
        self.starts = protocol_starts(protocol, num_frames, fps, spec, systoles)
        self._needed: NDArray[np.int64] = np.unique(np.concatenate([self._indices(n) for n in range(len(self))]))
        self._frames = read(self._needed)  # (K, H, W)

    @classmethod
    def of(
        cls,
        video: EchoVideo,
        processor: EchoMENVideoProcessor,
        protocol: str,
        findings: Sequence[Finding] = (),
        outline: VideoOutline | None = None,
    ) -> VideoClips:
        """Take the clips of a decoded video, which `crop_to_sector` has cropped."""

        def read(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            return processor.resize_frames(video.frames[indices]).numpy()

        return cls(video.source, video.num_frames, video.fps, processor.clip_spec, protocol, read, findings, outline)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._frames[np.searchsorted(self._needed, self._indices(index))]

    def _indices(self, index: int) -> NDArray[np.int64]:
        indices = clip_indices(int(self.starts[index]), self.num_frames, self.fps, self.spec)
        return indices[indices >= 0]

    def whole_video(self) -> NDArray[np.uint8]:
        """Put the frames where they are in the video, shape (N, H, W); black where no clip looks.

        A video that is filled up otherwise than with zeros is as long as its clip.
        """
        frames = np.zeros((self.num_frames, *self._frames.shape[1:]), dtype=np.uint8)
        frames[self._needed] = self._frames
        clip = self.spec.within(np.arange(self.spec.span(self.fps)), self.num_frames)
        return frames if len(clip) <= self.num_frames or clip[-1] < 0 else frames[clip]


class ClipsOfSplit(Dataset):
    """`VideoClips` of every video of a split, rows as `load_videos` gives them."""

    def __init__(
        self,
        videos: Sequence[dict[str, Any]],
        processor: EchoMENVideoProcessor,
        protocol: str,
        frames: FrameSource | None = None,
    ) -> None:
        if len(videos) == 0:
            raise ValueError("The evaluation split holds no video; check how the data set is split.")
        self.videos = videos
        self.spec = processor.clip_spec
        self.protocol = protocol
        self.frames = frames if frames is not None else DecodedFrames(processor)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> VideoClips:
        row = self.videos[index]
        length_and_rate = video_length_and_rate(row)
        return VideoClips(
            row["file_name"], *length_and_rate, self.spec, self.protocol, lambda needed: self.frames.read(row, needed)
        )
