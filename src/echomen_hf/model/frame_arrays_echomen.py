"""Videos given as arrays, tensors or Pillow images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .colour_doppler_echomen import ColourMeter, chroma_of_rgb, largest_share, luma_of_rgb
from .echo_video_echomen import EchoVideo, require_frame_size


__all__ = ["is_file", "list_videos", "to_echo_video", "to_grayscale"]

_ORIENTATION = 0x0112  # the Exif tag


def is_file(video: Any) -> bool:
    """Whether a video is a file still to be read, and not frames."""
    return isinstance(video, (str, os.PathLike, bytes)) or hasattr(video, "read") or isinstance(video, dict)


def list_videos(videos: Any) -> list[Any]:
    """Make a list of videos out of one video, its frames, a batch or a list."""
    if is_file(videos) or isinstance(videos, EchoVideo):
        return [videos]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        return list(videos) if videos.ndim == 5 else [videos]
    videos = list(videos)
    if not videos:
        raise ValueError("Got an empty list where at least one video was expected.")
    first = videos[0]
    if is_file(first) or isinstance(first, EchoVideo):
        return videos
    if isinstance(first, (list, tuple)):
        return [_stack_frames(frames) for frames in videos]
    if _is_image(first):
        return [_stack_frames(videos)]
    shape = np.shape(first)
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"A list of arrays of shape {shape} may be videos or frames; stack the frames of a video to one array of "
            "shape (frames, height, width) or (frames, channels, height, width)."
        )
    is_frame = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3, 4))
    return [_stack_frames(videos)] if is_frame else videos


def _is_image(frame: Any) -> bool:
    """Whether a frame is a Pillow image."""
    return hasattr(frame, "convert") and hasattr(frame, "mode")


def _stack_frames(frames: Sequence[Any]) -> np.ndarray:
    """Make one array of the frames of a video; Pillow images as they are shown, whatever their mode."""
    if all(_is_image(frame) for frame in frames):
        frames = [_upright(frame) for frame in frames]
        if any(frame.mode != "L" for frame in frames):
            # Numbers of more than 8 bits have no known scale, which is said where arrays are checked.
            frames = [frame if frame.mode.startswith(("I", "F")) else frame.convert("RGB") for frame in frames]
    return np.stack([np.asarray(frame) for frame in frames])


def _upright(image: Any) -> Any:
    """A Pillow image as its file says that it is shown, of a size that is checked before it is decoded."""
    require_frame_size(image.height, image.width, "image")
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps  # whoever has an image has Pillow

    return ImageOps.exif_transpose(image)


def to_echo_video(video: np.ndarray | torch.Tensor, fps: float) -> EchoVideo:
    """Make of an array of frames what reading a file would have given."""
    frames, colour = _channels_last(video), ColourMeter()
    for frame in frames if frames.ndim == 4 else []:
        if colour.wants_frame():
            colour.add(*chroma_of_rgb(frame))
    share = largest_share(colour.cells)
    return EchoVideo(to_grayscale(frames), fps, "array", share, coloured_cells=colour.cells)


def to_grayscale(video: np.ndarray | torch.Tensor) -> np.ndarray:
    """Convert frames to grayscale (ITU-R BT.601 luma), uint8, shape (T, H, W).

    Args:
        video: Frames on the 0-255 scale, shape (T, H, W), (T, H, W, C) or (T, C, H, W) with 1, 3 or 4 channels.

    Raises:
        ValueError: If the shape is none of these, or the scale is not 0-255.
    """
    frames = _channels_last(video)
    if frames.ndim == 4:
        return np.stack([luma_of_rgb(frame) for frame in frames])  # (T, H, W, 3) -> (T, H, W)
    return frames if frames.dtype == np.uint8 else np.rint(frames).astype(np.uint8)


def _channels_last(video: np.ndarray | torch.Tensor) -> np.ndarray:
    """Check an array of frames: (T, H, W), or (T, H, W, 3) without a fourth channel."""
    frames = video.detach().cpu().numpy() if isinstance(video, torch.Tensor) else np.asarray(video)
    if frames.ndim not in (3, 4) or 0 in frames.shape:
        raise ValueError(
            f"A video array has shape (frames, height, width), with channels last or second; got {frames.shape}."
        )
    if frames.dtype != np.uint8:
        low, high = float(frames.min()), float(frames.max())
        if low < 0 or high > 255 or (np.issubdtype(frames.dtype, np.floating) and high <= 1 and high > 0):
            raise ValueError(
                f"Pixel values must be on the 0-255 scale, got {frames.dtype} between {low:.4g} and {high:.4g}; "
                "scale the frames before passing them on."
            )
    if frames.ndim == 3:
        return frames
    if frames.shape[-1] not in (1, 3, 4):
        if frames.shape[1] not in (1, 3, 4):
            raise ValueError(f"No axis of a video array of shape {frames.shape} can be its 1, 3 or 4 channels.")
        frames = np.moveaxis(frames, 1, -1)
    return frames[..., 0] if frames.shape[-1] == 1 else frames[..., :3]
