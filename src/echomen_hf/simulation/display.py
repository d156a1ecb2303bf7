"""From the scanner's screen to the video file: post-filters, resizing, user interface and lossy compression."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from PIL import Image

from .motion import CardiacMotion
from .parameters import fixed_parameter


__all__ = ["Codec", "DisplayParameters", "acquired_frames", "show_frames"]

Codec = Literal["none", "jpeg", "mpeg4"]

_REFERENCE_SIZE = 112  # image size in pixels at which the pixel-valued ranges hold
_BLOCK = 16  # JPEG and MPEG code blocks of 8 or 16 pixels
_LARGEST_PICTURE = 65500  # pixels that a side of a JPEG may have


@dataclasses.dataclass(frozen=True)
class DisplayParameters:
    """What happens to the frames after the scanner; the defaults change nothing."""

    blur: float = fixed_parameter(0.0, "pixel", "standard deviation of the vendor's smoothing at 112 pixels")
    sharpening: float = fixed_parameter(0.0, "", "weight of the vendor's sharpening")
    resampled_size: float = fixed_parameter(112.0, "pixel", "size that the video had in between, 112 = the same")
    quality: float = fixed_parameter(95.0, "", "quality of the compression, 1 to 95")
    acquired_share: float = fixed_parameter(1.0, "", "frames acquired over frames shown; the rest are repeated")
    contour_mask: float = fixed_parameter(1.0, "", "from 0.5, everything outside the sector is blackened at the end")
    ecg: float = fixed_parameter(0.0, "", "from 0.5, the electrocardiogram runs through the lowest rows")
    ticks: float = fixed_parameter(0.0, "", "from 0.5, depth ticks are shown at the right edge")
    codec: Codec = "none"


def acquired_frames(frames: np.ndarray, share: float) -> np.ndarray:
    """Number of the acquired frame that each shown frame `(K,)` shows; `share` is acquired over shown, at most 1."""
    if share >= 1:
        return frames
    # the tiny terms keep whole numbers, blurred by the products, on their side
    newest = np.floor(frames * share + 1e-9)
    return np.minimum(np.ceil(newest / share - 1e-9), frames).astype(np.int64)


def show_frames(
    images: np.ndarray,
    parameters: DisplayParameters,
    *,
    frames: np.ndarray,
    motion: CardiacMotion,
    sector_mask: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Pass uint8 frames `(K, size, size)` through post-filters, user interface and compression."""
    size = images.shape[1]
    operator = _separable_filter(parameters, size)
    if operator is not None:
        filtered = operator @ images.astype(np.float32) @ operator.T
        images = np.clip(np.rint(filtered), 0, 255).astype(np.uint8)
    if parameters.contour_mask >= 0.5:
        images = np.where(sector_mask, images, np.uint8(0))
    if parameters.ticks >= 0.5:
        spacing, level = rng.uniform(5, 14) * size / _REFERENCE_SIZE, rng.integers(60, 220)
        rows = np.arange(rng.uniform(0, spacing), size, spacing).astype(int)
        column = size - 1 - int(rng.uniform(0, 6) * size / _REFERENCE_SIZE)
        images = images.copy()
        images[:, rows, column] = np.maximum(images[:, rows, column], level)
    if parameters.ecg >= 0.5:
        images = _draw_electrocardiogram(images, frames, motion, rng)
    if parameters.codec == "jpeg":
        return _through_jpeg(images, round(parameters.quality))
    if parameters.codec == "mpeg4":
        return _through_mpeg4(images, round(parameters.quality))
    return images


def _separable_filter(p: DisplayParameters, size: int) -> np.ndarray | None:
    """Smoothing, resizing to another size and back, and sharpening of one axis as one `(size, size)` matrix."""
    position = np.arange(size, dtype=np.float64)
    scale = size / _REFERENCE_SIZE
    operator = np.eye(size)
    if p.blur > 0.1:
        operator = _gaussian(position[:, None] - position, p.blur * scale) @ operator
    between = round(p.resampled_size * scale)
    if between != size:
        small = (np.arange(between) + 0.5) * size / between - 0.5
        # linear interpolation: downwards it aliases, upwards it blurs, as players and converters do
        down = np.maximum(1 - np.abs(small[:, None] - position), 0)
        back = (position + 0.5) * between / size - 0.5
        up = np.maximum(1 - np.abs(back[:, None] - np.arange(between)), 0)
        operator = _normalised(up) @ _normalised(down) @ operator
    if p.sharpening > 0.01:
        smooth = _gaussian(position[:, None] - position, 1.2 * scale)
        operator = ((1 + p.sharpening) * np.eye(size) - p.sharpening * smooth) @ operator
    if np.array_equal(operator, np.eye(size)):
        return None
    operator[np.abs(operator) < 1e-6] = 0
    return operator.astype(np.float32)


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    return _normalised(np.exp(-0.5 * (distance / sigma) ** 2))


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _draw_electrocardiogram(
    images: np.ndarray, frames: np.ndarray, motion: CardiacMotion, rng: np.random.Generator
) -> np.ndarray:
    """Draw a trace from left to right through the lowest rows."""
    size = images.shape[1]
    images = images.copy()
    base, height = size - 1 - rng.integers(2, 10), rng.uniform(4, 12) * size / _REFERENCE_SIZE
    columns_per_frame, level = rng.uniform(0.5, 1.5) * size / _REFERENCE_SIZE, int(rng.integers(90, 256))
    # each column belongs to the moment it was last written at
    column = np.arange(size)
    starts = motion.beat_starts
    for image, frame in zip(images, frames, strict=True):
        written = frame - ((frame * columns_per_frame - column) % size) / columns_per_frame
        beat = np.clip(np.searchsorted(starts, written, side="right") - 1, 0, len(starts) - 2)
        phase = (written - starts[beat]) / (starts[beat + 1] - starts[beat])
        # the R wave marks end diastole, the T wave end systole, the P wave the contraction of the atria
        wave = np.exp(-((np.minimum(phase, 1 - phase) / 0.02) ** 2)) + 0.25 * np.exp(-(((phase - 0.36) / 0.05) ** 2))
        wave += 0.12 * np.exp(-(((phase - 0.86) / 0.03) ** 2))
        row = np.clip(np.rint(base - height * wave), 0, size - 1).astype(int)
        image[row, column] = level
    return images


def _in_whole_blocks(images: np.ndarray) -> np.ndarray:
    padding = (-images.shape[1] % _BLOCK, -images.shape[2] % _BLOCK)
    return np.pad(images, ((0, 0), (0, padding[0]), (0, padding[1])), mode="edge")


def _through_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Compress each frame as JPEG; frames lie in whole blocks of tall pictures, so they stay independent."""
    padded = _in_whole_blocks(images)
    decoded = np.empty_like(padded)
    per_picture = _LARGEST_PICTURE // padded.shape[1]
    for start in range(0, len(images), per_picture):
        part = padded[start : start + per_picture]
        file = io.BytesIO()
        Image.fromarray(part.reshape(-1, part.shape[2])).save(file, "JPEG", quality=quality)
        decoded[start : start + per_picture] = np.asarray(Image.open(file)).reshape(part.shape)
    return np.ascontiguousarray(decoded[:, : images.shape[1], : images.shape[2]])


def _through_mpeg4(images: np.ndarray, quality: int) -> np.ndarray:
    """Compress the frames as MPEG-4 Part 2 video, whose errors drift until the next key frame."""
    padded = _in_whole_blocks(images)
    quantiser = str(int(np.clip(round(2 + (95 - quality) / 4), 2, 25)))
    height, width = padded.shape[1:]
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 50)
    encoder.thread_count = 1
    encoder.options = {"qmin": quantiser, "qmax": quantiser, "g": "12", "bf": "0"}
    decoder = av.CodecContext.create("mpeg4", "r")
    decoder.thread_count = 1
    chroma = np.full(height * width // 2, 128, dtype=np.uint8)
    packets = []
    for number, image in enumerate(padded):
        planes = np.concatenate([image.ravel(), chroma]).reshape(height * 3 // 2, width)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder.extradata = encoder.extradata
    decoded = [frame for packet in packets for frame in decoder.decode(packet)]
    decoded += decoder.decode(None)
    luma = np.stack([frame.to_ndarray()[:height] for frame in decoded])  # (K, H, W)
    return np.ascontiguousarray(luma[:, : images.shape[1], : images.shape[2]])
