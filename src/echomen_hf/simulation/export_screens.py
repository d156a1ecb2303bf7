"""User interfaces of invented ultrasound vendors: what a screen shows around the fan."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont


__all__ = ["VENDORS", "Box", "Colour", "Label", "Vendor", "beats", "draw_screen", "moving_labels", "text_patch"]

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first column and row outside."""

Colour = tuple[int, int, int]

_WHITE, _GRAY, _YELLOW, _GREEN, _CYAN = (235, 235, 235), (150, 150, 150), (230, 220, 90), (70, 220, 90), (90, 200, 230)


@dataclasses.dataclass(frozen=True)
class Vendor:
    """Colours and places of one vendor's user interface; lengths are shares of the screen's height."""

    background: Colour = (0, 0, 0)
    banner_height: float = 0.06
    banner: Colour = (0, 0, 0)
    banner_text: Colour = _WHITE
    text: Colour = _WHITE
    text_side: Literal["left", "right", "both"] = "left"
    text_size: float = 0.021
    gray_bar: Literal["left", "right", "none"] = "right"
    ticks: Literal["line", "numbers", "edge", "none"] = "line"
    tick: Colour = _GRAY
    apex_mark: str = "V"
    apex_colour: Colour = _GREEN
    ecg: Colour = _GREEN
    footer: bool = False
    thumbnails: int = 0


VENDORS: dict[str, Vendor] = {
    "cart": Vendor(),
    "premium": Vendor(banner=(38, 42, 50), text=_CYAN, gray_bar="left", ticks="numbers", apex_mark="P", footer=True),
    "classic": Vendor(
        banner_height=0.085, text=_YELLOW, text_side="both", text_size=0.024, tick=_WHITE, ecg=_YELLOW, apex_mark="o"
    ),
    "framed": Vendor(
        background=(46, 50, 58), banner_height=0.07, banner=(70, 76, 90), text_side="right", thumbnails=5, ecg=_CYAN
    ),
    "hand-held": Vendor(
        banner_height=0.045, text=_GRAY, text_size=0.018, gray_bar="none", ticks="edge", apex_mark="", ecg=_WHITE
    ),
    "workstation": Vendor(
        background=(22, 22, 24),
        banner=(90, 100, 125),
        text=_GRAY,
        text_side="both",
        gray_bar="left",
        ticks="numbers",
        tick=_YELLOW,
        thumbnails=4,
        footer=True,
        apex_mark="S",
    ),
}
"""Layouts by name. No mark, name or layout is that of a real manufacturer."""

_INSTITUTIONS = ("SIMULATED HOSPITAL", "ECHO LAB 2 (SIMULATED)", "NO PATIENT", "SIMULATION CLINIC CARDIOLOGY")
_NAMES = ("SAMPLE, NOBODY", "PHANTOM^HEART", "TEST, SIMULATED", "ANON-0417", "SYNTHETIC, A")
_PROBES = ("SX5-1", "PA4", "3V-Sim", "C1-5-S", "P4-2x")
_VALUES = (
    "2D", "FR {0} Hz", "{1}.{2} cm", "Gn {0}", "C {0}", "DR {0}", "P Low", "HPen", "Frq 1.{2}/3.{2}", "PWR 0 dB",
    "MI 1.{2}", "TIS 0.{2}", "{0}%", "Persist 2", "Map F/{2}", "HGen", "Adult Echo", "THI", "SRI {2}", "AO% 100",
    "Pos {1}", "Sector {0}\u00b0", "2D Opt: HRes", "XRes ON",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Label:
    """A line of text that changes while the clip is played: one text per frame at one place."""

    x: int
    y: int
    size: int
    colour: Colour
    texts: tuple[str, ...]


@functools.lru_cache(32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@functools.lru_cache(4096)
def text_patch(text: str, size: int, colour: Colour) -> np.ndarray:
    """Draw one line of text on black, uint8, `(H, W, 3)`."""
    left, top, right, bottom = _font(size).getbbox(text or " ")
    image = Image.new("RGB", (max(int(right - left), 1) + 2, max(int(bottom - top), 1) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=colour, font=_font(size))
    return np.asarray(image)


def draw_screen(
    vendor: Vendor, size: tuple[int, int], content: Box, fan: Box, rng: np.random.Generator
) -> Image.Image:
    """Draw everything that stands still around a fan.

    Args:
        vendor: User interface.
        size: Width and height of the picture.
        content: Box of the screen in the picture; what is outside stays black.
        fan: Box of the fan.
        rng: Source of randomness of the texts.
    """
    picture = Image.new("RGB", size)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = content
    unit = bottom - top
    draw.rectangle((left, top, right - 1, bottom - 1), fill=vendor.background)
    if any(vendor.background):
        # the picture has a black area of its own within the frame
        margin = round(0.012 * unit)
        frame = (left + margin, top + round(vendor.banner_height * unit), right - margin - 1, bottom - margin - 1)
        draw.rectangle(frame, fill=(0, 0, 0), outline=tuple(value + 40 for value in vendor.background))
    _draw_banner(draw, vendor, content, rng)
    below = top + round((vendor.banner_height + 0.02) * unit)
    if vendor.thumbnails:
        _draw_thumbnails(picture, content, fan, vendor.thumbnails, rng)
    for side in ("left", "right") if vendor.text_side == "both" else (vendor.text_side,):
        _draw_values(draw, vendor, content, below, side, rng)
    if vendor.gray_bar != "none":
        _draw_gray_bar(picture, content, vendor.gray_bar, below, rng)
    _draw_ticks(draw, vendor, content, fan, rng)
    if vendor.apex_mark:
        font = _font(max(round(1.3 * vendor.text_size * unit), 9))
        place = (0.5 * (fan[0] + fan[2]) + rng.choice([-1, 1]) * 0.04 * unit, fan[1] - 0.012 * unit)
        draw.text(place, vendor.apex_mark, fill=vendor.apex_colour, font=font, anchor="mm")
    return picture


def _draw_banner(draw: ImageDraw.ImageDraw, vendor: Vendor, content: Box, rng: np.random.Generator) -> None:
    left, top, right, bottom = content
    unit, height = bottom - top, round(vendor.banner_height * (bottom - top))
    draw.rectangle((left, top, right - 1, top + height), fill=vendor.banner)
    font = _font(max(round(0.36 * height), 8))
    day, minute = rng.integers(1, 29), rng.integers(0, 60)
    for share, first, second in (
        (0.01, rng.choice(_NAMES), f"ID {rng.integers(10**6, 10**7)}"),
        (0.38, rng.choice(_INSTITUTIONS), f"{rng.choice(_PROBES)}/Adult"),
        (
            0.78,
            f"{day:02d}/{rng.integers(1, 13):02d}/20{rng.integers(10, 27)}",
            f"{rng.integers(7, 19):02d}:{minute:02d}",
        ),
    ):
        x = left + share * (right - left)
        draw.text((x, top + 0.05 * height), str(first), fill=vendor.banner_text, font=font)
        draw.text((x, top + 0.52 * height), str(second), fill=vendor.banner_text, font=font)
    if vendor.footer:
        row = bottom - round(0.035 * unit)
        draw.rectangle((left, row, right - 1, bottom - 1), fill=vendor.banner)
        draw.text((left + 0.02 * unit, row), "Freeze    Cine    Store    Depth    Gain", vendor.banner_text, font)


def _draw_values(
    draw: ImageDraw.ImageDraw, vendor: Vendor, content: Box, below: int, side: str, rng: np.random.Generator
) -> None:
    left, top, right, bottom = content
    unit = bottom - top
    size = max(round(vendor.text_size * unit), 8)
    lines = rng.choice(_VALUES, size=rng.integers(5, 15), replace=False)
    inset = (0.08 if vendor.gray_bar == side else 0.025) * unit
    x = left + inset if side == "left" else right - inset
    y: float = below + rng.uniform(0, 0.1) * unit
    for line in lines:
        text = str(line).format(rng.integers(20, 90), rng.integers(10, 20), rng.integers(0, 10))
        draw.text((x, y), text, fill=vendor.text, font=_font(size), anchor="la" if side == "left" else "ra")
        y += 1.3 * size * (1 if rng.random() < 0.85 else 2)


def _draw_gray_bar(picture: Image.Image, content: Box, side: str, below: int, rng: np.random.Generator) -> None:
    left, top, right, bottom = content
    unit = bottom - top
    width, height = max(round(0.018 * unit), 4), round(rng.uniform(0.12, 0.35) * unit)
    ramp = np.repeat(np.linspace(255, 0, height).astype(np.uint8)[:, None], width, axis=1)
    x = left + round(0.03 * unit) if side == "left" else right - round(0.03 * unit) - width
    y = below + round(rng.uniform(0, 0.3) * unit)
    picture.paste(Image.fromarray(ramp).convert("RGB"), (x, y))
    ImageDraw.Draw(picture).rectangle((x - 1, y - 1, x + width, y + height), outline=_GRAY)


def _draw_ticks(draw: ImageDraw.ImageDraw, vendor: Vendor, content: Box, fan: Box, rng: np.random.Generator) -> None:
    """Depth ticks: on a line right of the fan, with numbers, or along the right side of the fan itself."""
    if vendor.ticks == "none":
        return
    left, top, right, bottom = content
    unit, height = bottom - top, fan[3] - fan[1]
    centimetres = int(rng.integers(11, 21))
    line = min(fan[2] + round(rng.uniform(0.01, 0.06) * unit), right - round(0.03 * unit))
    font = _font(max(round(0.017 * unit), 8))
    for step in range(centimetres + 1):
        y = fan[1] + height * step / centimetres
        x: float = line
        if vendor.ticks == "edge":
            x = 0.5 * (fan[0] + fan[2]) + (0.5 * (fan[2] - fan[0])) * min(step / centimetres / 0.7, 1) + 0.012 * unit
        length = (0.016 if step % 5 == 0 else 0.008) * unit
        draw.line((x, y, x + length, y), fill=vendor.tick, width=max(round(unit / 700), 1))
        if vendor.ticks == "numbers" and step % 5 == 0:
            draw.text((x + 1.4 * length, y), str(step), fill=vendor.tick, font=font, anchor="lm")
    if vendor.ticks != "edge":
        focus, half = fan[1] + rng.uniform(0.3, 0.8) * height, 0.008 * unit
        draw.polygon(
            ((line - 3 * half, focus - half), (line - 3 * half, focus + half), (line - half, focus)), vendor.tick
        )


def _draw_thumbnails(picture: Image.Image, content: Box, fan: Box, count: int, rng: np.random.Generator) -> None:
    """Small stills of earlier loops along the bottom, where the fan leaves room."""
    left, top, right, bottom = content
    height = round(0.09 * (bottom - top))
    y = bottom - round(0.05 * (bottom - top)) - height
    draw = ImageDraw.Draw(picture)
    width = round(1.33 * height)
    for number in range(count):
        x = left + round(0.03 * (bottom - top)) + number * round(1.15 * width)
        if fan[0] - width < x < fan[2] and fan[3] > y or x + width > right:
            continue
        draw.rectangle((x, y, x + width, y + height), fill=(0, 0, 0), outline=_GRAY)
        angle, level = rng.uniform(35, 50), int(rng.integers(40, 130))
        box = (x + 0.5 * width - 0.9 * height, y - 0.9 * height, x + 0.5 * width + 0.9 * height, y + 0.9 * height)
        draw.pieslice(box, 90 - angle, 90 + angle, fill=(level, level, level))


def beats(num_frames: int, fps: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Moments of the R waves in seconds, from before the clip until after it, and the heart rate in beats a minute."""
    rate = rng.uniform(48, 115)
    gaps = 60 / rate * (1 + rng.normal(0, rng.choice([0.02, 0.15]), int((num_frames / fps + 20) * rate / 60) + 2))
    return np.cumsum(np.maximum(gaps, 0.3)) - 12, rate


def moving_labels(
    content: Box, num_frames: int, fps: float, r_waves: np.ndarray, rate: float, rng: np.random.Generator
) -> list[Label]:
    """Choose the texts that change: heart rate, frame counter, clock and a star that flashes with every beat."""
    left, top, right, bottom = content
    unit = bottom - top
    size = max(round(0.024 * unit), 9)
    seconds = np.arange(num_frames) / fps
    beat = np.searchsorted(r_waves, seconds)
    since = seconds - r_waves[np.clip(beat - 1, 0, len(r_waves) - 1)]
    labels = []
    if rng.random() < 0.7:
        rates = np.round(rate + rng.integers(-3, 4, len(r_waves) + 1))
        texts = tuple(f"{rates[number]:.0f} {'bpm' if unit % 2 else 'HR'}" for number in beat)
        labels.append(Label(right - round(0.13 * unit), bottom - round(0.075 * unit), size, _GREEN, texts))
    if rng.random() < 0.3:
        texts = tuple("*" if moment < 0.15 else "" for moment in since)
        labels.append(Label(right - round(0.16 * unit), bottom - round(0.08 * unit), 2 * size, _WHITE, texts))
    if rng.random() < 0.5:
        texts = tuple(f"{number + 1}/{num_frames}" for number in range(num_frames))
        labels.append(Label(left + round(0.03 * unit), bottom - round(0.08 * unit), size, _YELLOW, texts))
    if rng.random() < 0.3:
        start = rng.integers(0, 40)
        texts = tuple(f"11:42:{int(start + moment):02d}.{int(moment * 10) % 10}" for moment in seconds)
        labels.append(Label(left + round(0.03 * unit), top + round(0.11 * unit), size, _GRAY, texts))
    return labels
