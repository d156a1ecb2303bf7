"""Saliency: the moving pixels that the estimate depends on."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter

from ..model.clip_sampling_echomen import clip_indices, protocol_starts
from ..model.echo_video_echomen import EchoVideo
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor


__all__ = ["DEFAULT_STEPS", "attribute_motion", "motion_saliency"]

DEFAULT_STEPS = 8
"""Points of the integral: the small model's sums are then right to 0.2 EF points."""

_MAX_PASSES = 256  # through the model, for all windows of a clip
_BLUR = (0.7, 1.5, 1.5)  # clip frames and pixels of the model's input
_BRIGHTEST = 99.5  # percentile of the saliency that is shown at full strength


def attribute_motion(
    model: EchoMENModel, clip: torch.Tensor, length: int, steps: int = DEFAULT_STEPS, batch_size: int = 4
) -> NDArray[np.float32]:
    """Attribute the effect of the motion on the estimate to pixels, by integrated gradients.

    The baseline is the same heart standing still: every frame is the mean of the clip. Pixels that do not move get
    exactly 0, and the sum over all pixels is EF(clip) - EF(still heart), up to the error of the integral
    (completeness, proposition 1 of Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks").

    Args:
        model: Model in evaluation mode.
        clip: One normalised clip, shape (T, C, H, W).
        length: Number of real frames of the clip; blank ones after them stay blank in the baseline.
        steps: Points of the integral.
        batch_size: Points evaluated in one pass.

    Returns:
        EF points per pixel, of either sign, shape (T, H, W).
    """
    clip = clip[None].cpu().to(torch.promote_types(model.dtype, torch.float32))
    still = clip.clone()
    # In double precision, which not every device has, the mean of equal numbers is that number, so that rounding does
    # not look like motion.
    still[:, :length] = clip[:, :length].double().mean(dim=1, keepdim=True).to(clip.dtype)
    clip, still = clip.to(model.device), still.to(model.device)
    gradients = IntegratedGradients(lambda pixel_values: model(pixel_values=pixel_values).ejection_fraction)
    attribution = gradients.attribute(clip, baselines=still, n_steps=steps, internal_batch_size=batch_size)
    return attribution[0].sum(dim=1).detach().float().cpu().numpy()  # (1, T, C, H, W) -> (T, H, W)


def motion_saliency(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    video: EchoVideo,
    steps: int = DEFAULT_STEPS,
    deadline: float = math.inf,
) -> NDArray[np.float32]:
    """How much each place of each frame changed the estimate, in either direction.

    Returns float32 between 0 and 1, shape (frames, h, w), where h and w are those of the resized picture from which
    the model takes its central crop. Of very many windows, some are used. At the
    `deadline` of `time.monotonic`, a TimeoutError is raised.
    """
    starts = protocol_starts("windows", video.num_frames, video.fps, processor.clip_spec)
    if len(starts) * steps > _MAX_PASSES:
        starts = protocol_starts(max(1, _MAX_PASSES // steps), video.num_frames, video.fps, processor.clip_spec)
    size = processor.resize_frames(video.frames[:1], do_center_crop=False).shape[1:]
    total: dict[int, NDArray[np.float64]] = {}
    counts: dict[int, int] = {}
    for start in map(int, starts):
        if time.monotonic() > deadline:
            raise TimeoutError("The saliency of the clip takes too long.")
        indices = clip_indices(start, video.num_frames, video.fps, processor.clip_spec)
        indices = indices[indices >= 0]
        clip = processor.make_clips(video, [start])[0]
        magnitude = np.abs(attribute_motion(model, clip, len(indices), steps))
        for index, picture in zip(map(int, indices), gaussian_filter(magnitude, _BLUR)):
            total[index] = total.get(index, np.zeros(picture.shape)) + picture
            counts[index] = counts.get(index, 0) + 1
    seen = sorted(total)
    values = np.stack([total[index] / counts[index] for index in seen])  # (K, crop h, crop w)
    if len(seen) > 1:
        frames = np.clip(np.arange(video.num_frames), seen[0], seen[-1])
        values = make_interp_spline(seen, values, k=1)(frames)  # (K, ...) -> (frames, ...)
    else:
        values = np.repeat(values, video.num_frames, axis=0)
    strongest = np.percentile(values, _BRIGHTEST)
    if strongest > 0:
        values = np.clip(values / strongest, 0, 1)
    return _place_in_picture(values.astype(np.float32), size)


def _place_in_picture(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Undo the central crop: the model sees nothing outside it."""
    (height, width), (crop_height, crop_width) = size, values.shape[1:]
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    # Negative padding cuts where the crop was larger than the picture and filled with zeros.
    padding = (left, width - crop_width - left, top, height - crop_height - top)
    return F.pad(torch.from_numpy(values), padding).numpy()
