"""Clips on the screen of an ultrasound machine, as its video exports show them."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from ..model.colour_doppler_echomen import LUMA_WEIGHTS
from .export_codecs import JPEG_BLOCK, through_h264, through_jpeg
from .export_screens import VENDORS, Box, Vendor, beats, draw_screen, moving_labels, text_patch
from .fans import bounding_box, lit_fan


__all__ = ["Export", "ExportSettings", "export_clip", "sample_export_settings"]

_SIZES = ((640, 480), (720, 576), (800, 600), (1024, 768), (1280, 720), (1280, 960), (1280, 1024), (1920, 1080))


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Screen that a clip is shown on; `sample_export_settings` draws one.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels, as `width` even.
        vendor: User interface, a key of `VENDORS`.
        fan_height: Height of the fan over that of the picture. A fan that would be too wide becomes smaller.
        across: Where the fan stands in the room that it leaves, from 0 (left) to 1 (right).
        down: The same from 0 (top) to 1 (bottom).
        overhang: Share of the fan's width that is cut off by the nearer side of the picture.
        letterbox: Share of the picture that black bars take, above and below if positive, at the sides if negative.
        second_panel: Panel beside the fan: nothing, the same moment in colour Doppler, or a frozen frame.
        second_size: Height of the second fan over that of the first.
        ecg: Electrocardiogram: none, written from left to right, or scrolling.
        calipers: Whether somebody has left a measurement in the fan.
        tint: Whether the gray levels are shown in colours from brown to white.
        codec: Compression of the whole picture.
        quality: Quality of the compression, 1 to 95.
        seed: Seed of texts, places of marks and the electrocardiogram.
    """

    width: int = 1024
    height: int = 768
    vendor: str = "cart"
    fan_height: float = 0.75
    across: float = 0.5
    down: float = 0.5
    overhang: float = 0.0
    letterbox: float = 0.0
    second_panel: Literal["none", "colour", "still"] = "none"
    second_size: float = 0.8
    ecg: Literal["none", "sweep", "scroll"] = "sweep"
    calipers: bool = False
    tint: bool = False
    codec: Literal["none", "jpeg", "h264"] = "none"
    quality: float = 80.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.vendor not in VENDORS:
            raise ValueError(f"vendor must be one of {', '.join(VENDORS)}, got {self.vendor!r}")
        if self.width % 2 or self.height % 2:
            raise ValueError(f"width and height must be even, got {self.width} x {self.height}")


class Export(NamedTuple):
    """A clip on a screen, and where its fan is.

    Args:
        frames: Pixels, uint8, `(T, H, W)` or `(T, H, W, 3)`.
        fps: Frames per second.
        box: Left, top, right and bottom of the fan; right and bottom are the first column and row outside.
        mask: Pixels of the fan, bool, `(H, W)`.
    """

    frames: NDArray[np.uint8]
    fps: float
    box: Box
    mask: NDArray[np.bool_]


def sample_export_settings(rng: np.random.Generator) -> ExportSettings:
    """Draw a screen.

    Args:
        rng: Source of randomness.

    Returns:
        Settings of the screen.
    """
    width, height = _SIZES[rng.choice(len(_SIZES), p=[0.12, 0.06, 0.14, 0.24, 0.14, 0.12, 0.08, 0.1])]
    # large fans are usual: the operator wants to see the heart
    fan_height = float(rng.triangular(0.3, 0.75, 0.9))
    return ExportSettings(
        width=width,
        height=height,
        vendor=str(rng.choice(list(VENDORS))),
        fan_height=fan_height,
        across=float(rng.beta(2, 2)),
        down=float(rng.random()),
        overhang=float(rng.uniform(0.01, 0.06)) if rng.random() < 0.04 else 0.0,
        letterbox=float(rng.uniform(0.04, 0.16) * rng.choice([-1, 1])) if rng.random() < 0.12 else 0.0,
        second_panel=("none", "colour", "still")[rng.choice(3, p=[0.84, 0.08, 0.08])],
        second_size=float(rng.uniform(0.5, 1.0)),
        ecg=("none", "sweep", "scroll")[rng.choice(3, p=[0.2, 0.5, 0.3])],
        calipers=bool(rng.random() < 0.08),
        tint=bool(rng.random() < 0.1),
        codec=("none", "jpeg", "h264")[rng.choice(3, p=[0.3, 0.4, 0.3])],
        quality=float(rng.uniform(55, 95)),
        seed=int(rng.integers(2**31)),
    )


def export_clip(
    frames: NDArray[np.uint8],
    fps: float,
    settings: ExportSettings,
    fan_mask: NDArray[np.bool_] | None = None,
    in_colour: bool = False,
) -> Export:
    """Show a clip on a screen.

    Args:
        frames: Frames of the clip, uint8, `(T, H, W)`.
        fps: Frames per second.
        settings: Screen.
        fan_mask: Pixels of the fan in the clip, bool, `(H, W)`; what is ever lit if `None`, see `lit_fan`.
        in_colour: Whether to return red, green and blue instead of their luma.

    Returns:
        The clip on the screen. It depends on the arguments only.

    Raises:
        ValueError: If the frames are not such an array, or the fan is empty.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3:
        raise ValueError(f"frames must be uint8 of shape (T, H, W), got {frames.dtype} {frames.shape}")
    mask = lit_fan(frames) if fan_mask is None else fan_mask
    if not mask.any():
        raise ValueError("The clip shows no fan: fan_mask is empty, or no pixel is ever lit.")
    rng = np.random.default_rng(settings.seed)
    vendor = VENDORS[settings.vendor]
    content = _content_box(settings)
    fan, second = _place_fans(settings, vendor, content, mask)
    still = draw_screen(vendor, (settings.width, settings.height), content, fan, rng)

    screen = _Screen(still, len(frames), in_colour)
    table = _tint_table() if settings.tint else np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if second is not None:
        others = frames if settings.second_panel == "colour" else np.repeat(frames[:1], len(frames), axis=0)
        shown = table[others]
        if settings.second_panel == "colour":
            shown = _colour_doppler(others, mask, fps, rng)
        screen.paste(shown, mask, second)
    true_mask = screen.paste(table[frames] if in_colour or settings.tint else frames, mask, fan)
    r_waves, rate = beats(len(frames), fps, rng)
    if settings.calipers:
        screen.draw_over(_calipers(still.size, fan, rng))
    if settings.ecg != "none":
        _draw_ecg(screen, settings.ecg, vendor, content, fan, r_waves, fps, rng)
    for label in moving_labels(content, len(frames), fps, r_waves, rate, rng):
        patches = [text_patch(text, label.size, label.colour) for text in label.texts]
        screen.write(patches, label.x, label.y)
    if settings.codec == "jpeg":
        screen.through_jpeg(round(settings.quality))
    elif settings.codec == "h264":
        # 55 to 95 become rate factors of 29 to 17: from a messenger's to an archive's
        screen.pixels = through_h264(screen.pixels, round(45.5 - 0.3 * settings.quality))
    box = (max(fan[0], 0), max(fan[1], 0), min(fan[2], settings.width), min(fan[3], settings.height))
    return Export(screen.pixels, fps, box, true_mask)


class _Screen:
    """Frames of the whole picture, gray or coloured, and the boxes of what moves in them."""

    def __init__(self, still: Image.Image, num_frames: int, in_colour: bool) -> None:
        self.in_colour = in_colour
        still_pixels = np.asarray(still if in_colour else still.convert("L"))
        self.pixels = np.empty((num_frames, *still_pixels.shape), dtype=np.uint8)
        self.pixels[:] = still_pixels
        self.moving: list[Box] = []

    def _shown(self, colours: np.ndarray) -> np.ndarray:
        """Coloured pixels `(..., 3)` as this screen holds them."""
        return colours if self.in_colour else np.rint(colours @ LUMA_WEIGHTS.astype(np.float32)).astype(np.uint8)

    def paste(self, clip: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
        """Paste the fan of a clip, `(T, H, W)` or `(T, H, W, 3)`, enlarged to a box that may overhang the picture."""
        if clip.ndim == 4 and not self.in_colour:
            clip = self._shown(clip)
        source = bounding_box(mask)
        size = (box[2] - box[0], box[3] - box[1])
        height, width = self.pixels.shape[1:3]
        left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
        inner = (slice(top - box[1], bottom - box[1]), slice(left - box[0], right - box[0]))
        # smoothed, so that the steps of the small mask do not show
        soft = np.pad(mask.astype(np.float32), 4)
        soft = gaussian_filter(soft, 0.8)[4:-4, 4:-4]
        large = Image.fromarray(soft).resize(size, Image.Resampling.BICUBIC, box=source)
        shape = np.asarray(large)[inner] > 0.45
        for target, image in zip(self.pixels, clip, strict=True):
            pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=source))[inner]
            np.copyto(target[top:bottom, left:right], pixels, where=shape[..., None] if self.in_colour else shape)
        self.moving.append((left, top, right, bottom))
        whole = np.zeros((height, width), dtype=bool)
        whole[top:bottom, left:right] = shape
        return whole

    def write(self, patches: list[np.ndarray], x: int, y: int) -> None:
        """Write one coloured patch per frame, with its upper left corner at one place."""
        height, width = self.pixels.shape[1:3]
        for target, patch in zip(self.pixels, patches, strict=True):
            rows, columns = min(patch.shape[0], height - y), min(patch.shape[1], width - x)
            target[y : y + rows, x : x + columns] = self._shown(patch[:rows, :columns])
        rows, columns = (max(patch.shape[axis] for patch in patches) for axis in (0, 1))
        self.moving.append((x, y, min(x + columns, width), min(y + rows, height)))

    def draw_over(self, layer: Image.Image) -> None:
        """Draw everything of a layer that is not black on every frame."""
        colours = np.asarray(layer)
        rows, columns = np.nonzero(colours.any(axis=2))
        self.pixels[:, rows, columns] = self._shown(colours[rows, columns])

    def through_jpeg(self, quality: int) -> None:
        """Compress every frame as JPEG. What stands still has the same blocks in all frames and is compressed once."""
        # whole blocks; what lies beyond the picture is cut off by the slices
        block = JPEG_BLOCK
        boxes = _separate(
            [
                (left // block * block, top // block * block, -(-right // block) * block, -(-bottom // block) * block)
                for left, top, right, bottom in self.moving
            ]
        )
        still = through_jpeg(self.pixels[:1], quality)[0]
        parts = [through_jpeg(self.pixels[:, top:bottom, left:right], quality) for left, top, right, bottom in boxes]
        self.pixels[:] = still
        for (left, top, right, bottom), part in zip(boxes, parts, strict=True):
            self.pixels[:, top:bottom, left:right] = part


def _content_box(settings: ExportSettings) -> Box:
    bar = round(abs(settings.letterbox) / 2 * (settings.height if settings.letterbox > 0 else settings.width))
    if settings.letterbox > 0:
        return (0, bar, settings.width, settings.height - bar)
    return (bar, 0, settings.width - bar, settings.height)


def _place_fans(settings: ExportSettings, vendor: Vendor, content: Box, mask: np.ndarray) -> tuple[Box, Box | None]:
    """Boxes of the fan and of the second one beside it."""
    left, top, right, bottom = content
    unit = bottom - top
    top += round((vendor.banner_height + 0.025) * unit)
    bottom -= round(0.04 * unit) if vendor.footer else 0
    source = bounding_box(mask)
    shape = (source[2] - source[0]) / (source[3] - source[1])
    panel = (left, right)
    other: tuple[int, int] | None = None
    if settings.second_panel != "none":
        panel, other = (left, (left + right) // 2), ((left + right) // 2, right)
        # machines put the plain picture left; a smaller second one may stand on either side
        if settings.second_size < 0.9 and settings.seed % 2:
            panel, other = other, panel
    height = min(settings.fan_height * settings.height, 0.98 * (bottom - top), 0.98 * (panel[1] - panel[0]) / shape)
    fan = _placed(panel, (top, bottom), height, shape, settings.across, settings.down)
    if settings.overhang and settings.second_panel == "none":
        shift = round(settings.overhang * (fan[2] - fan[0]))
        x = -shift if settings.across < 0.5 else settings.width - (fan[2] - fan[0]) + shift
        fan = (x, fan[1], x + fan[2] - fan[0], fan[3])
    if other is None:
        return fan, None
    return fan, _placed(other, (top, bottom), settings.second_size * height, shape, settings.across, settings.down)


def _placed(
    columns: tuple[int, int], rows: tuple[int, int], height: float, shape: float, across: float, down: float
) -> Box:
    width, height = round(height * shape), round(height)
    x = columns[0] + round(across * (columns[1] - columns[0] - width))
    y = rows[0] + round(down * (rows[1] - rows[0] - height))
    return (x, y, x + width, y + height)


def _separate(boxes: list[Box]) -> list[Box]:
    """Join boxes that overlap until none do."""
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
                joint = (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))
                return _separate([b for b in boxes if b not in (box, other)] + [joint])
    return boxes


def _tint_table() -> np.ndarray:
    """Colours from black over brown to white, `(256, 3)`."""
    level = np.linspace(0, 1, 256)
    return np.rint(255 * np.stack([level**0.8, level, level**1.4], axis=1)).astype(np.uint8)


def _colour_doppler(frames: np.ndarray, mask: np.ndarray, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Frames with flow in red and blue wherever a box in the middle of the fan is dark, `(T, H, W, 3)`."""
    height, width = mask.shape
    field = zoom(rng.standard_normal((2, 7, 7)), (1, height / 7, width / 7), order=1)[:, :height, :width]
    left, top, right, bottom = bounding_box(mask)
    row, column = np.mgrid[:height, :width]
    inside = mask & (np.abs(column - (left + right) / 2) < 0.22 * (right - left))
    inside &= (row > top + 0.25 * (bottom - top)) & (row < top + 0.85 * (bottom - top))
    phase = 2 * np.pi * 1.2 * np.arange(len(frames))[:, None, None] / fps
    velocity = field[0] * np.sin(phase + 2 * field[1])  # (T, H, W)
    strength = np.clip(np.abs(velocity), 0, 1)
    red, blue = (
        (200 * strength + 55, 120 * strength, 0 * strength),
        (0 * strength, 120 * strength, 200 * strength + 55),
    )
    flow = np.where((velocity > 0)[..., None], np.stack(red, -1), np.stack(blue, -1)).astype(np.uint8)
    shown = (strength > 0.25) & inside & (frames < 50)
    return np.where(shown[..., None], flow, frames[..., None])


def _calipers(size: tuple[int, int], fan: Box, rng: np.random.Generator) -> Image.Image:
    """Two crosses and a dotted line between them inside the fan."""
    layer = Image.new("RGB", size)
    draw = ImageDraw.Draw(layer)
    unit = fan[3] - fan[1]
    ends = [
        np.array([(fan[0] + fan[2]) / 2 + rng.uniform(-0.15, 0.15) * unit, fan[1] + share * unit])
        for share in (rng.uniform(0.3, 0.45), rng.uniform(0.55, 0.8))
    ]
    for x, y in ends:
        arm = max(0.015 * unit, 3)
        draw.line((x - arm, y, x + arm, y), fill=(240, 220, 60))
        draw.line((x, y - arm, x, y + arm), fill=(240, 220, 60))
    for share in np.linspace(0, 1, 20):
        x, y = ends[0] + share * (ends[1] - ends[0])
        draw.point((x, y), fill=(240, 220, 60))
    return layer


def _draw_ecg(
    screen: _Screen,
    kind: str,
    vendor: Vendor,
    content: Box,
    fan: Box,
    r_waves: np.ndarray,
    fps: float,
    rng: np.random.Generator,
) -> None:
    """Draw the trace of an electrocardiogram along the bottom, where it may cross the fan."""
    left, top, right, bottom = content
    unit = bottom - top
    if rng.random() < 0.3:
        left, right = max(left, fan[0]), min(right, fan[2])
    left, right = left + round(0.01 * unit), right - round(rng.choice([0.01, 0.16]) * unit)
    height = round(rng.uniform(0.05, 0.13) * unit)
    low = bottom - round((0.05 if vendor.footer else rng.uniform(0.01, 0.06)) * unit)
    column = np.arange(right - left)
    speed = (right - left) / rng.uniform(2.5, 5.0)  # columns a second
    colour = screen._shown(np.array(vendor.ecg, dtype=np.uint8))
    half = max(unit / 900, 0.5)
    noise = rng.normal(0, 0.015, 4096)
    row = np.arange(height)[:, None]
    for number, target in enumerate(screen.pixels):
        now = number / fps
        if kind == "scroll":
            moment = now - (len(column) - column) / speed
        else:
            head = (now * speed) % len(column)
            moment = now - ((head - column) % len(column)) / speed
        beat = np.clip(np.searchsorted(r_waves, moment) - 1, 0, len(r_waves) - 2)
        since, until = moment - r_waves[beat], r_waves[beat + 1] - moment
        wave = np.exp(-((np.minimum(since, until) / 0.012) ** 2)) - 0.2 * np.exp(-(((since - 0.03) / 0.012) ** 2))
        wave += 0.25 * np.exp(-(((since - 0.28) / 0.05) ** 2)) + 0.12 * np.exp(-(((until - 0.16) / 0.03) ** 2))
        wave += noise[(moment * 400).astype(int) % len(noise)]
        y = (height - 1) * (0.78 - 0.75 * wave)
        lowest, highest = np.minimum(y, np.roll(y, 1)), np.maximum(y, np.roll(y, 1))
        drawn = (row >= lowest - half) & (row <= highest + half)
        if kind == "sweep":
            drawn &= (column - head) % len(column) > 0.03 * len(column)
        target[low - height : low, left:right][drawn] = colour
    screen.moving.append((left, low - height, right, low))
