"""Ejection fractions of videos: the one loop over clips behind `Predictor`, `predict_video` and `predict_split`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, default_collate
from tqdm.auto import tqdm

from ..data.clip_dataset import FrameSource
from ..data.device_clips import pack_clip, with_pixel_values
from ..model.clip_quality_echomen import inspect_clip
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol
from ..model.echo_video_echomen import EchoVideo
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibration_for
from ..model.video_prediction_echomen import VideoPrediction, average_clips, begin_estimate, estimate_embeddings
from ..model.video_processing_echomen import EchoMENVideoProcessor
from .video_clips import ClipsOfSplit, VideoClips
from .windows import SharedWindows


if TYPE_CHECKING:
    from ..outline import VideoOutline


__all__ = ["Encode", "VideoPrediction", "predict_clips", "predict_split", "predict_video"]

Encode = Callable[[torch.Tensor], torch.Tensor]
"""From normalised clips, float32, shape (B, T, C, H, W), to embeddings, (B, D); see `echomen_hf.inference.Engine`."""

T = TypeVar("T")


def predict_video(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    video: EchoVideo,
    protocol: str = DEFAULT_PROTOCOL,
    batch_size: int = 4,
    engine: Encode | None = None,
    windows: SharedWindows | None = None,
    outline: VideoOutline | None = None,
    is_other_view: bool | None = None,
) -> VideoPrediction:
    """Estimate the ejection fraction of one video, whatever its quality.

    Args:
        model: Model; it is put into evaluation mode.
        processor: Its video processor.
        video: Grayscale video and its frame rate.
        protocol: Which clips to take, see `protocol_starts`.
        batch_size: Clips per forward pass.
        engine: What runs the encoder; defaults to the model itself.
        windows: What runs the encoder instead, on all clips of the video together.
        outline: Outline of the left ventricle in the video, a second reading.
        is_other_view: What `shows_other_view` says of the video, if it has no `outline`; `None` if it was not asked.

    Returns:
        The prediction, averaged over clips.
    """
    video = processor.crop_to_sector(video)
    findings = inspect_clip(video, processor.clip_spec, outline, is_other_view)
    clips = VideoClips.of(video, processor, protocol, findings, outline)
    return next(_predictions(model, processor, [clips], protocol, batch_size, engine, windows))


def predict_split(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    protocol: str = DEFAULT_PROTOCOL,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
    engine: Encode | None = None,
    windows: SharedWindows | None = None,
    frames: FrameSource | None = None,
) -> list[VideoPrediction]:
    """Estimate the ejection fraction of every video of a split, whatever its quality.

    Args:
        model: Model; it is put into evaluation mode.
        processor: Its video processor.
        videos: Rows as `load_videos` gives them.
        protocol: Which clips to take, see `protocol_starts`.
        batch_size: Most clips per forward pass.
        num_workers: Processes that read videos besides this one.
        progress: Whether to show a progress bar.
        engine: What runs the encoder; defaults to the model itself.
        windows: What runs the encoder instead, on all clips of a video together.
        frames: Where frames come from; defaults to the videos' files.

    Returns:
        Predictions in the order of the videos.

    Raises:
        ValueError: If there is no video, or no such protocol.
    """
    dataset = ClipsOfSplit(videos, processor, parse_protocol(protocol), frames)
    loader: Iterable[VideoClips] = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    if progress:
        loader = tqdm(loader, desc=f"Predicting {len(videos)} videos ({protocol})", unit="video")
    return list(_predictions(model, processor, loader, protocol, batch_size, engine, windows))


def _predictions(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Iterable[VideoClips],
    protocol: str,
    batch_size: int,
    engine: Encode | None,
    windows: SharedWindows | None,
) -> Iterator[VideoPrediction]:
    named = ((None, clips) for clips in videos)
    for _, prediction in predict_clips(model, processor, named, protocol, batch_size, engine, windows):
        assert isinstance(prediction, VideoPrediction)
        yield prediction


def predict_clips(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Iterable[tuple[T, VideoClips | Exception]],
    protocol: str,
    batch_size: int,
    engine: Encode | None,
    windows: SharedWindows | None,
    force: bool = True,
) -> Iterator[tuple[T, VideoPrediction | Exception]]:
    """Estimate videos in their order, each as soon as all its clips are.

    Where PyTorch runs on a CPU, which full batches do not make faster, a batch ends with its video: nothing of a
    finished video waits for the next one, and no estimate depends on which videos are beside it. Elsewhere batches are
    filled across videos. Every video comes with a key, and its result leaves with it. An error in the place of a video
    is passed on.
    """
    model.eval()
    average = partial(
        average_clips,
        calibration=calibration_for(model.config, protocol),
        distribution=getattr(model, "training_distribution", None),
        force=force,
    )
    device = model.device if engine is None else model.regression_head.weight.device
    fill_batches = device.type != "cpu" or getattr(engine, "name", "torch") != "torch"
    waiting: deque[_Waiting[T]] = deque()
    batch: list[tuple[_Waiting[T], dict[str, torch.Tensor]]] = []
    begun: deque[tuple[list[_Waiting[T]], Callable[[], dict[str, torch.Tensor]]]] = deque()
    # While an accelerator computes a batch, the next one is put together.
    most_begun = 0 if device.type == "cpu" else 1

    def run_batch() -> None:
        packed = default_collate([clip for _, clip in batch])
        if device.type == "cuda":
            packed["frames"] = packed["frames"].pin_memory()
        pixel_values = with_pixel_values(packed, device)["pixel_values"]  # (B, T, C, H, W)
        begun.append(([video for video, _ in batch], begin_estimate(model, pixel_values, engine)))
        batch.clear()
        take_results(most_begun)

    def take_results(most_left: int = 0) -> None:
        while len(begun) > most_left:
            videos_of_batch, finish = begun.popleft()
            estimates = finish()
            for position, video in enumerate(videos_of_batch):
                video.add({name: values[position : position + 1] for name, values in estimates.items()})

    def finished() -> Iterator[tuple[T, VideoPrediction | Exception]]:
        while waiting and (result := waiting[0].result(average)) is not None:
            yield waiting.popleft().key, result

    for key, content in videos:
        video = _Waiting(key, content)
        waiting.append(video)
        if isinstance(content, VideoClips):
            if windows is not None:
                embedding = windows(
                    torch.from_numpy(content.whole_video()),
                    content.starts,
                    content.spec.frame_offsets(content.fps),
                    processor.normalize_frames,
                )
                video.add(estimate_embeddings(model, embedding))
            else:
                for number in range(len(content)):
                    batch.append((video, pack_clip(content[number], processor)))
                    if len(batch) == batch_size:
                        run_batch()
                        yield from finished()
        # Files that cannot be read fill no batch, and those behind them must not wait for it.
        if batch and not fill_batches:
            run_batch()
        if len(waiting) > 2 * batch_size:
            if batch:
                run_batch()
            take_results()
        yield from finished()
    if batch:
        run_batch()
    take_results()
    yield from finished()


@dataclass
class _Waiting(Generic[T]):
    """A video whose clips have not all been estimated."""

    key: T
    content: VideoClips | Exception
    estimates: list[dict[str, torch.Tensor]] = field(default_factory=list)
    num_estimated: int = 0

    def add(self, estimates: dict[str, torch.Tensor]) -> None:
        self.estimates.append(estimates)
        self.num_estimated += len(estimates["ejection_fraction"])

    def result(self, average: Callable[..., VideoPrediction]) -> VideoPrediction | Exception | None:
        if isinstance(self.content, Exception):
            return self.content
        if self.num_estimated < len(self.content):
            return None
        clips = {name: torch.cat([part[name] for part in self.estimates]) for name in self.estimates[0]}
        return average(self.content.name, clips, findings=self.content.findings, outline=self.content.outline)
