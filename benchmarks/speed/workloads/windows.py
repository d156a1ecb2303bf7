"""All clips of a video: encoded one by one, against shared work between overlapping ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.workload import Unavailable, Workload
from echomen_hf.data.loading import load_echonet_dynamic
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.inference.engines.torch_engine import FastEncoder
from echomen_hf.inference.windows.shared_windows import SharedWindows
from echomen_hf.model.clip_sampling_echomen import protocol_starts
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor
from echomen_hf.model.video_reading_echomen import read_video


__all__ = ["ClipByClip", "Sharing"]


class Windows(Workload):
    """Predicts one video with the full-size network from every start frame, or every N-th."""

    def __init__(
        self,
        model: str,
        data_dir: str,
        num_frames: int,
        protocol: str = "all",
        batch_size: int = 4,
        trained: str | None = None,
        trained_videos: int = 0,
    ) -> None:
        self.model, self.processor = load_checkpoint(model)
        self.protocol, self.batch_size = protocol, batch_size
        splits = load_echonet_dynamic(data_dir)
        whole = read_video(first_video(splits["train"], num_frames)["video"])
        self.video = EchoVideo(whole.frames[:num_frames], whole.fps, whole.source, whole.coloured_share)
        self.encoder = FastEncoder(self.model.encoder, torch.float32, self.processor).eval()
        self.trained = trained
        test = splits["test"] if trained is not None else []
        self.trained_rows: list[dict[str, Any]] = [test[index] for index in range(min(trained_videos, len(test)))]
        self.embeddings = torch.empty(0)

    def starts(self, video: EchoVideo, processor: EchoMENVideoProcessor, protocol: str) -> NDArray[np.int64]:
        """First frames of the clips of a video."""
        return protocol_starts(protocol, video.num_frames, video.fps, processor.clip_spec)

    def encode(self, encoder: FastEncoder, processor: EchoMENVideoProcessor, video: EchoVideo) -> torch.Tensor:
        """Encode the clips of a video."""
        raise NotImplementedError

    def run(self) -> float:
        """Encode the clips of the video and predict."""
        self.embeddings = self.encode(self.encoder, self.processor, self.video)
        with torch.inference_mode():
            self.model(embedding=self.embeddings)
        return 1

    def values(self) -> NDArray[np.floating]:
        """Ejection fraction in percent by video and start frame, that of the full-size network first.

        NaN stands for a start that was not taken, and behind the last start of a video.
        """
        rows = [self.by_start(self.model, self.processor, self.video, self.embeddings)]
        if self.trained is not None:
            model, processor = load_checkpoint(self.trained)
            encoder = FastEncoder(model.encoder, torch.float32, processor).eval()
            for row in self.trained_rows:
                video = read_video(row["video"])
                rows.append(self.by_start(model, processor, video, self.encode(encoder, processor, video)))
        values = np.full((len(rows), max(map(len, rows))), np.nan)
        for place, by_start in zip(values, rows):
            place[: len(by_start)] = by_start
        return values

    @torch.inference_mode()
    def by_start(
        self, model: EchoMENModel, processor: EchoMENVideoProcessor, video: EchoVideo, embeddings: torch.Tensor
    ) -> NDArray[np.float64]:
        """Ejection fraction of the clips of a video by start frame, NaN for those left out."""
        values = np.full(len(self.starts(video, processor, "all")), np.nan)
        values[self.starts(video, processor, self.protocol)] = model(embedding=embeddings).ejection_fraction.numpy()
        return values

    def notes(self) -> dict[str, Any]:
        """Number of clips and frames."""
        return {"clips": len(self.starts(self.video, self.processor, self.protocol)), "frames": self.video.num_frames}


def first_video(rows: Any, num_frames: int) -> dict[str, Any]:
    """First video at 50 frames per second that is long enough, as assumed in docs/performance.md."""
    for row in rows:
        if row["num_frames"] >= num_frames and row["fps"] == 50:
            return row
    raise Unavailable(f"No training video has {num_frames} frames at 50 frames per second.")


class ClipByClip(Windows):
    """Encodes every clip separately."""

    @torch.inference_mode()
    def encode(self, encoder: FastEncoder, processor: EchoMENVideoProcessor, video: EchoVideo) -> torch.Tensor:
        """Encode the clips in batches."""
        starts = self.starts(video, processor, self.protocol)
        batches = (starts[first : first + self.batch_size] for first in range(0, len(starts), self.batch_size))
        return torch.cat([encoder(processor.make_clips(video, batch)) for batch in batches])


class Sharing(Windows):
    """Encodes the clips with `SharedWindows`."""

    def encode(self, encoder: FastEncoder, processor: EchoMENVideoProcessor, video: EchoVideo) -> torch.Tensor:
        """Encode the common parts of the clips once."""
        frames = processor.normalize_frames(processor.resize_frames(video.frames))[:, : encoder.num_channels]
        offsets = processor.clip_spec.frame_offsets(video.fps)
        shared = SharedWindows(encoder.encoder, self.batch_size)
        return shared(frames, self.starts(video, processor, self.protocol), offsets)

    def notes(self) -> dict[str, Any]:
        """Number of clips, and the saving of operations."""
        offsets = self.processor.clip_spec.frame_offsets(self.video.fps)
        size = self.model.config.image_size
        starts = self.starts(self.video, self.processor, self.protocol)
        cost = SharedWindows(self.encoder.encoder).cost(starts, offsets, size, size)
        return {**super().notes(), "flops_ratio_by_sharing": cost.ratio}
