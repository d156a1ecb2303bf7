"""Reading of a training item: OpenCV on whole videos, against the data sets of this package."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.workload import Workload
from echomen_hf.data.clip_dataset import TrainingClips
from echomen_hf.data.collation import collate_clips
from echomen_hf.data.decoded_frames import DecodedFrames
from echomen_hf.data.device_clips import with_pixel_values
from echomen_hf.data.frame_cache import FrameCache
from echomen_hf.data.loading import load_echonet_dynamic
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.model.clip_sampling_echomen import clip_indices, random_start


__all__ = ["CachedItems", "FileItems", "OpenCVItems", "PackedCachedItems", "PackedItems", "read_whole_video"]

CROP_PADDING = 12


class Items(Workload):
    """Reads training items of the first training videos in this process."""

    def __init__(self, model: str, data_dir: str, num_videos: int = 48, seed: int = 0) -> None:
        _, self.processor = load_checkpoint(model)
        train = load_echonet_dynamic(data_dir)["train"]
        # As a list, since reading a row of Arrow is no part of decoding.
        self.rows: list[dict[str, Any]] = list(train.select(range(min(num_videos, len(train)))))
        self.seed = seed
        self.last: list[torch.Tensor] = []

    def item(self, index: int) -> torch.Tensor:
        """Read one training item."""
        raise NotImplementedError

    def run(self) -> float:
        """Read all items."""
        self.last = [self.item(index) for index in range(len(self.rows))]
        return len(self.rows)

    def values(self) -> NDArray[np.floating]:
        """Items in grey levels, shape (videos, T, C, H, W)."""
        mean, std = self.processor.image_mean[0], self.processor.image_std[0]
        return (torch.stack(self.last) * std + mean).double().numpy()


class OpenCVItems(Items):
    """Decodes and normalises the whole video in three float channels, and cuts out the clip."""

    def __init__(self, **options: Any) -> None:
        # Before anything is measured, if it is missing.
        import cv2  # noqa: F401

        super().__init__(**options)

    def item(self, index: int) -> torch.Tensor:
        """Read one training item with the clip and crop that `TrainingClips` draws."""
        row, spec = self.rows[index], self.processor.clip_spec
        generator = np.random.default_rng((self.seed, 0, index))
        video = read_whole_video(row["video"]["path"])  # (F, H, W, C)
        video -= np.asarray(self.processor.image_mean, dtype=np.float32)
        video /= np.asarray(self.processor.image_std, dtype=np.float32)
        num_frames, fps = int(row["num_frames"]), float(row["fps"])
        indices = clip_indices(random_start(num_frames, fps, spec, generator), num_frames, fps, spec)
        clip = np.zeros((len(indices), *video.shape[1:]), dtype=np.float32)
        clip[indices >= 0] = video[indices[indices >= 0]]
        top, left = generator.integers(0, 2 * CROP_PADDING + 1, size=2)
        padding = (0, 0), (CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0)
        height, width = clip.shape[1:3]
        crop = np.pad(clip, padding)[:, top : top + height, left : left + width]
        return torch.from_numpy(crop.transpose(0, 3, 1, 2).copy())  # (T, H, W, C) -> (T, C, H, W)


class FileItems(Items):
    """`TrainingClips` on files, with normalisation."""

    def __init__(self, decoder: str = "pyav", **options: Any) -> None:
        if decoder == "simplejpeg":
            import simplejpeg  # noqa: F401
        super().__init__(**options)
        self.decoder = decoder
        frames = DecodedFrames(self.processor, decoder)
        self.dataset = TrainingClips(
            self.rows, self.processor, crop_padding=CROP_PADDING, seed=self.seed, frames=frames
        )

    def item(self, index: int) -> torch.Tensor:
        """Read one training item."""
        return with_pixel_values(collate_clips([self.dataset[index]]))["pixel_values"][0]


class PackedItems(FileItems):
    """`TrainingClips` on files without normalisation, which the device does."""

    def run(self) -> float:
        """Read all items as a loader process does."""
        for index in range(len(self.rows)):
            self.dataset[index]
        return len(self.rows)

    def values(self) -> NDArray[np.floating]:
        """Items in grey levels, shape (videos, T, C, H, W)."""
        self.last = [self.item(index) for index in range(len(self.rows))]
        return super().values()

    def notes(self) -> dict[str, Any]:
        """Length of the videos, and the time of the codec alone."""
        spec, seconds = self.processor.clip_spec, []
        for row in self.rows:
            num_frames, fps = int(row["num_frames"]), float(row["fps"])
            indices = clip_indices(max(0, num_frames - spec.span(fps)) // 2, num_frames, fps, spec)
            seconds.append(seconds_of_codec(row["video"]["path"], indices, self.decoder))
        notes = {"frames_per_video": float(np.mean([row["num_frames"] for row in self.rows]))}
        return {**notes, "codec_seconds_per_item": float(np.mean(seconds))} if np.isfinite(seconds).all() else notes


def seconds_of_codec(path: str, indices: NDArray[np.int64], decoder: str = "pyav") -> float:
    """Least time of a decoder for some frames, NaN for a codec in which frames depend on others."""
    with av.open(path) as container:
        if not container.streams.video[0].codec_context.codec.intra_only:
            return float("nan")
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        wanted = [packets[index] for index in indices[indices >= 0].tolist()]
        decode = av.Packet.decode if decoder == "pyav" else luma_of_packet
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            for packet in wanted:
                decode(packet)
            seconds.append(time.perf_counter() - began)
    return min(seconds)


def luma_of_packet(packet: av.Packet) -> NDArray[np.uint8]:
    """Luma of a JPEG image, uint8, shape (height, width, 1)."""
    import simplejpeg

    return simplejpeg.decode_jpeg(packet, "GRAY")


class CachedItems(FileItems):
    """`TrainingClips` on a frame cache, with normalisation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._folder = tempfile.TemporaryDirectory()
        began = time.perf_counter()
        self.dataset.frames = FrameCache.build(self._folder.name, self.rows, self.processor, num_threads=1)
        self.seconds_to_build = time.perf_counter() - began

    def notes(self) -> dict[str, Any]:
        """Time and size of the cache."""
        size = sum(file.stat().st_size for file in Path(self._folder.name).iterdir())
        return {
            "cache_seconds_per_video": self.seconds_to_build / len(self.rows),
            "cache_bytes_per_video": size / len(self.rows),
        }


class PackedCachedItems(CachedItems, PackedItems):
    """`TrainingClips` on a frame cache without normalisation."""


def read_whole_video(path: str) -> NDArray[np.float32]:
    """All frames of a video, decoded by OpenCV: RGB, float32, shape (F, H, W, 3)."""
    import cv2

    capture = cv2.VideoCapture(path)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    height, width = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    for number in range(count):
        found, frame = capture.read()
        if not found:
            raise OSError(f"OpenCV cannot read frame {number} of {path}.")
        frames[number] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()
    return frames.astype(np.float32)
