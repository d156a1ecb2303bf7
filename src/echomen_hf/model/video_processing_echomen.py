"""Video processor for EchoMEN: from echocardiogram frames to the clips that the model takes in."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .clip_sampling_echomen import ClipSpec, ShortVideos, clip_indices, protocol_starts
from .echo_video_echomen import EchoVideo, cut_out_sector, warn_if_coloured
from .frame_arrays_echomen import is_file, list_videos, to_echo_video
from .video_encoder_echomen import EncoderClip, pixel_scale
from .video_reading_echomen import read_video


MAX_ASPECT = 4
"""Longest side of a frame over its shortest; what lies outside the centre would be cropped anyway."""


class EchoMENVideosKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `EchoMENVideoProcessor` besides those of every video processor.

    Args:
        num_channels (`int`, *optional*): Channels of the output; grayscale frames are repeated for 3.
        sampling_period (`int`, *optional*): Frames from one frame of a clip to the next at `reference_fps`.
        reference_fps (`float`, *optional*): Frame rate that `sampling_period` refers to.
        do_find_sector (`bool`, *optional*): Cut the ultrasound fan out of a screen.
        short_videos (`str`, *optional*): What fills a clip that the video is too short for.
    """

    do_find_sector: bool | None
    num_channels: int | None
    sampling_period: int | None
    reference_fps: float | int | None
    short_videos: ShortVideos | None


class EchoMENVideoProcessor(BaseVideoProcessor):
    r"""Turns videos into normalised clips of a fixed number of frames.

    A video is a path or the bytes of a file (AVI, MP4, MKV, GIF, DICOM), an array or tensor of shape (T, H, W),
    (T, H, W, C) or (T, C, H, W) on the 0-255 scale, or a list of PIL frames. Frames become grayscale, their shorter
    side is resized and the central square cropped. The central clip is taken, resampled in time so that it spans the
    same number of seconds at any frame rate; a short video is filled up as `short_videos` says. Normalisation uses the
    statistics of the training set on the 0-255 scale, stored with the processor.

    Args:
        size (`dict[str, int]`, *optional*, defaults to `{"shortest_edge": 112}`): Size of the shorter side.
        crop_size (`dict[str, int]`, *optional*, defaults to `{"height": 112, "width": 112}`): Size of the clip.
        image_mean (`float` or `list[float]`, *optional*, defaults to `[32.6]`): Mean, one value or one per channel.
        image_std (`float` or `list[float]`, *optional*, defaults to `[49.9]`): Standard deviation, likewise.
        num_frames (`int`, *optional*, defaults to 32): Frames of a clip.
        sampling_period (`int`, *optional*, defaults to 2): Source frames from one frame of a clip to the next.
        reference_fps (`float`, *optional*, defaults to 50.0): Frame rate that `sampling_period` refers to.
        num_channels (`int`, *optional*, defaults to 3): Channels of the output.
        do_sample_frames (`bool`, *optional*, defaults to `True`): Take the central clip, or keep every frame.
        do_find_sector (`bool`, *optional*, defaults to `True`): Cut the square around the ultrasound fan out of a
            screen, black outside the fan, see `find_sector`; a clip that is cropped already stays as it is. `False`
            for a checkpoint whose file does not say, since it was trained without.
        short_videos (`str`, *optional*, defaults to `"back_and_forth"`): What fills a clip that the video is too short
            for: the video again, `"back_and_forth"` or in a `"loop"`; `"last_frame"`; or `"zeros"`, the mean of the
            training set, as in the paper. `"zeros"` for a checkpoint whose file does not say.

    Example:
    ```python
    >>> import numpy as np
    >>> from echomen_hf import EchoMENVideoProcessor

    >>> processor = EchoMENVideoProcessor()
    >>> video = np.zeros((180, 112, 112), dtype=np.uint8)
    >>> processor(video, return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 32, 3, 112, 112])
    ```
    """

    valid_kwargs = EchoMENVideosKwargs
    model_input_names = ["pixel_values"]

    resample = PILImageResampling.BILINEAR
    size = {"shortest_edge": 112}
    default_to_square = False
    crop_size = {"height": 112, "width": 112}
    do_resize = True
    do_center_crop = True
    do_rescale = False
    do_normalize = True
    do_find_sector = True
    image_mean = [32.6]
    image_std = [49.9]
    do_sample_frames = True
    num_frames = 32
    sampling_period = 2
    reference_fps = 50.0
    short_videos: ShortVideos = "back_and_forth"
    num_channels = 3

    def __init__(self, **kwargs: Unpack[EchoMENVideosKwargs]) -> None:
        super().__init__(**kwargs)
        if self.num_channels not in (1, 3):
            raise ValueError(f"`num_channels` must be 1 (grayscale) or 3, got {self.num_channels}.")
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            value = [float(value)] if isinstance(value, (int, float)) else [float(v) for v in value]
            if len(value) not in (1, self.num_channels):
                raise ValueError(f"`{name}` needs one value or {self.num_channels}, one per channel; got {value}.")
            setattr(self, name, value)
        if min(self.image_std) <= 0:
            raise ValueError(f"`image_std` must be positive, got {self.image_std}.")

    @classmethod
    def for_model(cls, config: Any, **kwargs: Unpack[EchoMENVideosKwargs]) -> "EchoMENVideoProcessor":
        """Make the processor whose clips have the shape that a model takes in.

        Args:
            config: Configuration of the model.
            kwargs: Further options of the class, such as the statistics of the training set.

        Returns:
            The processor.
        """
        return cls(
            size={"shortest_edge": config.image_size},
            crop_size={"height": config.image_size, "width": config.image_size},
            num_frames=config.num_frames,
            sampling_period=config.sampling_period,
            reference_fps=config.reference_fps,
            num_channels=config.num_channels,
            **kwargs,
        )

    @classmethod
    def for_encoder(
        cls, name_or_path: str | Path, config: Any, **kwargs: Unpack[EchoMENVideosKwargs]
    ) -> "EchoMENVideoProcessor":
        """Make the processor of a model on a pre-trained encoder: `for_model`, normalising as the encoder's own does.

        Args:
            name_or_path: Folder or Hub id of the encoder, with its processor.
            config: Configuration of the model that `EchoMENModel.from_encoder` made.
            kwargs: Further options of the class.
        """
        clip = EncoderClip(config.num_frames, config.image_size, config.num_channels)
        mean, std = pixel_scale(name_or_path, clip)
        return cls.for_model(config, **{"image_mean": mean, "image_std": std, **kwargs})

    @property
    def clip_spec(self) -> ClipSpec:
        """How frames are chosen in time."""
        return ClipSpec(self.num_frames, self.sampling_period, self.reference_fps, self.short_videos)

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make the processor that a file describes."""
        before = {"do_find_sector": False, "short_videos": "zeros"}
        return super().from_dict({**before, **video_processor_dict}, **kwargs)

    def crop_to_sector(self, video: EchoVideo) -> EchoVideo:
        """Cut the ultrasound fan out of a whole video, if `do_find_sector`.

        Args:
            video: Grayscale video.

        Returns:
            The video with its `sector`; its frames are those given unless they show a screen. A video whose sector is
            known comes back as it is.
        """
        if not self.do_find_sector or video.sector is not None:
            return video
        return cut_out_sector(video)

    def preprocess(
        self, videos: Any, return_tensors: str | TensorType | None = None, **kwargs: Unpack[EchoMENVideosKwargs]
    ) -> BatchFeature:
        """Prepare videos for the model.

        Args:
            videos: One video or a list of videos; see the class for what a video can be.
            return_tensors: `"pt"` or `"np"` to stack the clips of a batch; a list of tensors without it.
            kwargs: Any option of the class, for this call only.

        Returns:
            `BatchFeature` with `pixel_values`, each clip of shape (frames, channels, height, width), float32.

        Raises:
            ValueError: If a video cannot be read or has a shape that no video has, or `fps` is given.
        """
        if kwargs.get("fps") is not None:
            raise ValueError(
                "Clips keep their duration at any frame rate, so there is no `fps` to sample at. To tell the frame "
                'rate of an array, pass `video_metadata={"fps": ...}`.'
            )
        asked = kwargs.pop("do_find_sector", None)
        if asked not in (None, self.do_find_sector):
            other = copy.copy(self)
            other.do_find_sector = asked
            return other.preprocess(videos, return_tensors, **kwargs)
        features = super().preprocess(videos, **kwargs)
        if kwargs.get("do_sample_frames", self.do_sample_frames):
            num_frames = kwargs.get("num_frames") or self.num_frames
            features["pixel_values"] = [pad_with_zeros(clip, num_frames) for clip in features["pixel_values"]]
        return features.convert_to_tensors(return_tensors)

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        sampling_period: int | None = None,
        reference_fps: float | None = None,
        short_videos: ShortVideos | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Choose the frames of the central clip.

        Args:
            metadata: Number of frames and frame rate of the video; an unknown rate is taken to be `reference_fps`.
            num_frames: Frames of the clip.
            sampling_period: Source frames between them at `reference_fps`.
            reference_fps: Frame rate that `sampling_period` refers to.
            short_videos: What fills the clip if the video ends before it does.
            kwargs: Not used.

        Returns:
            Indices into the video, int64; with `"zeros"`, fewer than `num_frames` if the video ends before.
        """
        spec = ClipSpec(
            num_frames or self.num_frames,
            sampling_period or self.sampling_period,
            reference_fps or self.reference_fps,
            short_videos or self.short_videos,
        )
        fps = metadata.fps or spec.reference_fps
        start = protocol_starts("center", metadata.total_num_frames, fps, spec)[0]
        indices = clip_indices(start, metadata.total_num_frames, fps, spec)
        return indices[indices >= 0]

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Any = None) -> tuple[np.ndarray, VideoMetadata]:
        """Read a video file, by PyAV or pydicom.

        Args:
            video_url_or_urls: Path or bytes of one file.
            sample_indices_fn: Function from the metadata to the indices of the frames to keep.

        Returns:
            Frames, uint8, shape (T, H, W), and the metadata of the whole video.
        """
        return self._sample(warn_if_coloured(self.crop_to_sector(read_video(video_url_or_urls))), sample_indices_fn)

    def _sample(self, video: EchoVideo, sample_indices_fn: Any) -> tuple[np.ndarray, VideoMetadata]:
        num_frames, height, width = video.frames.shape
        metadata = VideoMetadata(total_num_frames=num_frames, fps=video.fps, height=height, width=width)
        if sample_indices_fn is None:
            return video.frames, metadata
        metadata.frames_indices = sample_indices_fn(metadata=metadata)
        return video.frames[metadata.frames_indices], metadata

    def _decode_and_sample_videos(
        self,
        videos: Any,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Any = None,
    ) -> tuple[list[np.ndarray], list[VideoMetadata]]:
        batch = list_videos(videos)
        known = video_metadata if isinstance(video_metadata, (list, tuple)) else [video_metadata] * len(batch)
        if len(known) != len(batch):
            raise ValueError(f"Got metadata for {len(known)} videos, but {len(batch)} videos.")
        sampled = []
        for video, given in zip(batch, known):
            if is_file(video):
                sampled.append(self.fetch_videos(video, sample_indices_fn))
            else:
                echo = video if isinstance(video, EchoVideo) else None
                if echo is None:
                    fps = getattr(given, "fps", None) or (given or {}).get("fps")
                    echo = to_echo_video(video, fps or self.reference_fps)
                sampled.append(self._sample(warn_if_coloured(self.crop_to_sector(echo)), sample_indices_fn))
        return [frames for frames, _ in sampled], [metadata for _, metadata in sampled]

    def _prepare_input_videos(
        self,
        videos: list[np.ndarray],
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: str | torch.device | None = None,
    ) -> list[torch.Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(frames)).to(device or "cpu") for frames in videos]

    def _preprocess(self, videos: list[torch.Tensor], **kwargs: Any) -> BatchFeature:
        clips = [self.normalize_frames(self.resize_frames(frames, **kwargs), **kwargs) for frames in videos]
        return BatchFeature(data={"pixel_values": clips})

    def resize_frames(self, frames: np.ndarray | torch.Tensor, **options: Any) -> torch.Tensor:
        """Resize frames and crop their central square, the spatial half of the processing.

        Args:
            frames: Grayscale frames on the 0-255 scale, uint8, shape (T, H, W).
            options: Options of the class to use instead of the stored ones.

        Returns:
            Frames, uint8, shape (T, height, width) of `crop_size`.
        """
        if not options and self.leaves_size(*frames.shape[-2:]):
            return torch.as_tensor(frames)
        clip = torch.as_tensor(frames).unsqueeze(1)  # (T, H, W) -> (T, 1, H, W)
        if options.get("do_resize", self.do_resize):
            clip = central_part(clip)
            clip = self.resize(clip, as_size(options.get("size", self.size)), options.get("resample", self.resample))
        if options.get("do_center_crop", self.do_center_crop):
            clip = self.center_crop(clip, as_size(options.get("crop_size", self.crop_size)))
        return clip.squeeze(1)

    def leaves_size(self, height: int, width: int) -> bool:
        """Whether frames of a size come out of `resize_frames` as they are."""
        size, crop = as_size(self.size), as_size(self.crop_size)
        is_resized = self.do_resize and not size.shortest_edge == height == width
        return not is_resized and (not self.do_center_crop or (crop.height, crop.width) == (height, width))

    def normalize_frames(self, frames: torch.Tensor, **options: Any) -> torch.Tensor:
        """Normalise frames and repeat them for every channel, the second half of the processing.

        Args:
            frames: Grayscale frames on the 0-255 scale, shape (T, H, W).
            options: Options of the class to use instead of the stored ones.

        Returns:
            Clip, float32, shape (T, channels, H, W).
        """
        clip = frames.unsqueeze(1).to(torch.float32)  # (T, H, W) -> (T, 1, H, W)
        if options.get("do_rescale", self.do_rescale):
            factor: Any = options.get("rescale_factor", self.rescale_factor)
            clip = clip * factor
        if options.get("do_normalize", self.do_normalize):
            mean, std = (
                torch.tensor(options.get(name, getattr(self, name)), device=clip.device).view(1, -1, 1, 1)
                for name in ("image_mean", "image_std")
            )
            clip = (clip - mean) / std  # (T, 1, H, W), or (T, C, H, W) with statistics per channel
        return clip.expand(-1, options.get("num_channels", self.num_channels), -1, -1)

    def make_clips(self, video: EchoVideo, starts: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Cut several clips out of one video, resizing and normalising every frame only once.

        Args:
            video: Grayscale video and its frame rate.
            starts: First source frame of each of the n clips.

        Returns:
            Clips, float32, shape (n, frames, channels, height, width).
        """
        video = self.crop_to_sector(video)
        clip_frames = np.stack([clip_indices(int(s), video.num_frames, video.fps, self.clip_spec) for s in starts])
        needed, position = np.unique(clip_frames[clip_frames >= 0], return_inverse=True)
        prepared = self.normalize_frames(self.resize_frames(video.frames[needed]))  # (K, C, h, w)
        clips = prepared.new_zeros(*clip_frames.shape, *prepared.shape[1:])
        clips[torch.from_numpy(clip_frames >= 0)] = prepared[torch.from_numpy(position)]
        return clips


def as_size(size: dict[str, int] | SizeDict) -> SizeDict:
    """A size in the type that the resizing functions take."""
    return size if isinstance(size, SizeDict) else SizeDict(**size)


def central_part(clip: torch.Tensor) -> torch.Tensor:
    """Cut the ends off frames (..., H, W) so long that resizing their shorter side would fill the memory."""
    height, width = clip.shape[-2:]
    longest = MAX_ASPECT * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return clip[..., top : top + longest, left : left + longest]


def pad_with_zeros(clip: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Append zero frames to a clip (T, C, H, W) that the video was too short for."""
    missing = num_frames - len(clip)
    return clip if missing <= 0 else torch.cat([clip, clip.new_zeros(missing, *clip.shape[1:])])


__all__ = ["EchoMENVideoProcessor"]
