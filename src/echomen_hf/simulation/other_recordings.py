"""Simulated recordings that show no apical four-chamber view, for testing what a model makes of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from .anatomy import Outline
from .echo import EchoParameters, render_scatterers, sample_echo_parameters, simulate_echo
from .image_formation import SectorGeometry
from .motion import CardiacMotion, simulate_cardiac_motion
from .profiles import SimulationProfile
from .scatterers import ScattererCloud, ribbon_count
from .tissue import add_surroundings


__all__ = ["OTHER_RECORDINGS", "OtherRecording", "simulate_other_recording"]

OtherRecording = Literal[
    "short_axis",
    "long_axis",
    "lung",
    "m_mode",
    "spectral_doppler",
    "noise",
    "moving_shapes",
    "scrolling_text",
    "still",
]

OTHER_RECORDINGS: tuple[OtherRecording, ...] = get_args(OtherRecording)
"""Kinds of recordings that `simulate_other_recording` knows."""

_WORDS = [
    "HR",
    "bpm",
    "Adult",
    "Echo",
    "MI",
    "TIs",
    "2D",
    "Gen",
    "Gain",
    "cm",
    "Hz",
    "dB",
    "PHASED",
    "12",
    "1.3",
    "47%",
]


def simulate_other_recording(
    kind: OtherRecording,
    seed: int,
    num_frames: int = 100,
    fps: float = 50.0,
    image_size: int = 112,
    profile: str | SimulationProfile = "wide",
) -> np.ndarray:
    """Simulate a recording that has no ejection fraction to measure in an apical four-chamber view.

    Args:
        kind: `short_axis` and `long_axis` are parasternal views of a beating heart, `lung` is a sliding pleura. They
            are imaged by the machines of the profile. `m_mode` and `spectral_doppler` are strips that scroll or are
            swept. `noise`, `moving_shapes` and `scrolling_text` are no ultrasound. `still` is one frame of an apical
            four-chamber view.
        seed: Seed.
        num_frames: Number of frames.
        fps: Frames per second.
        image_size: Height and width in pixels.
        profile: Ranges of the machines, see `PROFILES`.

    Returns:
        Frames, uint8, shape (num_frames, image_size, image_size).

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in OTHER_RECORDINGS:
        raise ValueError(f"unknown kind of recording {kind!r}: choose one of {', '.join(OTHER_RECORDINGS)}")
    rng = np.random.default_rng([seed, OTHER_RECORDINGS.index(kind)])
    if kind in _VIEWS:
        return _image_view(kind, rng, num_frames, fps, image_size, profile)
    if kind == "still":
        echo = simulate_echo(
            rng, num_frames=max(num_frames, 50), image_size=image_size, profile=profile, frames=np.array([0])
        )
        return np.repeat(echo.frames, num_frames, axis=0)
    if kind in _STRIPS:
        return _run_strip(_STRIPS[kind], rng, num_frames, fps, image_size)
    return _PICTURES[kind](rng, num_frames, image_size)


def _image_view(
    kind: str, rng: np.random.Generator, num_frames: int, fps: float, size: int, profile: str | SimulationProfile
) -> np.ndarray:
    parameters = sample_echo_parameters(rng, rng.uniform(20, 75), num_frames, fps, profile)
    parameters = dataclasses.replace(parameters, depth=rng.uniform(110, 165))
    motion = simulate_cardiac_motion(parameters.motion, num_frames, fps, rng)
    tissue = parameters.tissue
    cloud = ScattererCloud(rng, tissue.decorrelation, tissue.wall_blur, tissue.anisotropy)
    motion = _VIEWS[kind](cloud, parameters, motion)
    scatterers = cloud.build(np.array([[0.0, 0.0], [0.0, parameters.depth]]))
    geometry = SectorGeometry(parameters.imaging, size, parameters.depth)
    return render_scatterers(scatterers, motion, geometry, parameters, np.arange(num_frames), rng)


def _add_band(cloud: ScattererCloud, parameters: EchoParameters, inner: Outline, outer: Outline, level: float) -> None:
    p = parameters.tissue
    count = ribbon_count(inner, outer, p.density)
    cloud.add_ribbon(inner, outer, count, np.full(len(inner.end_diastole), level), p.patchiness, p.wall_edge_gain)


def _short_axis(cloud: ScattererCloud, parameters: EchoParameters, motion: CardiacMotion) -> CardiacMotion:
    """Cut through a cylinder: a ring that becomes thicker and smaller, beside it the right ventricle."""
    rng, p, depth = cloud.rng, parameters.tissue, parameters.depth
    centre = np.array([rng.uniform(-8, 14), depth * rng.uniform(0.45, 0.58)])
    radius, thickness = rng.uniform(19, 31), rng.uniform(7, 12)
    # an eighth of the volume is ejected by shortening, which a cut does not show
    systolic_radius = radius * math.sqrt(min((1 - parameters.ejection_fraction / 100) / 0.87, 1))
    turn = np.linspace(0, 2 * np.pi, 97)
    wobble = 1 + rng.uniform(0, 0.06) * np.cos(2 * turn + rng.uniform(0, 6))

    def ring(diastole: np.ndarray | float, systole: np.ndarray | float, angle: np.ndarray = turn) -> Outline:
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        shapes = (np.broadcast_to(size, angle.shape)[:, None] * direction + centre for size in (diastole, systole))
        return Outline(*shapes)

    # the wall keeps its area
    outer_radius = radius + thickness
    systolic_outer = math.sqrt(outer_radius**2 - radius**2 + systolic_radius**2)
    inner = ring(radius * wobble, systolic_radius * wobble)
    outer = ring(outer_radius * wobble, systolic_outer * wobble)
    _add_band(cloud, parameters, inner, outer, max(p.septum_level, -8))
    lateral = np.linspace(-1.2, 1.4, 40)
    rim = ring(outer_radius, systolic_outer, lateral)
    _add_band(cloud, parameters, rim, ring(outer_radius + 2, systolic_outer + 2, lateral), p.pericardium_level)
    # the right ventricle lies above and to the left of the ring
    across = np.linspace(-1, 1, 60)
    around = np.radians(rng.uniform(190, 225)) + np.radians(rng.uniform(50, 70)) * across
    width = rng.uniform(14, 30) * np.cos(np.pi / 2 * across)
    free_wall = ring(outer_radius + width, systolic_outer + 0.75 * width, around)
    outside = ring(outer_radius + width + 4, systolic_outer + 0.75 * width + 4, around)
    _add_band(cloud, parameters, free_wall, outside, max(p.right_ventricle_level, -14))
    for angle in (rng.uniform(0.5, 0.9), rng.uniform(2.2, 2.7)):
        muscle = ring(0.74 * radius, 0.6 * systolic_radius, np.array([angle]))
        cloud.add_blob(muscle, 0, p.papillary_radius + 1, 60, max(p.papillary_level, -12))
    blood = int(0.2 * radius**2)
    reach, around = np.sqrt(rng.random(blood)), rng.uniform(0, 2 * np.pi, blood)
    inside = ring(radius * reach, systolic_radius * reach, around)
    cloud.add(inside.end_diastole, inside.displacement, p.blood_level)
    chambers = [outer.end_diastole, np.concatenate([outside.end_diastole, centre[None]])]
    add_surroundings(cloud, p, depth, _half_angle(parameters), chambers, [outer, free_wall])
    return motion


def _half_angle(parameters: EchoParameters) -> float:
    return math.radians(parameters.imaging.sector_half_angle)


def _long_axis(cloud: ScattererCloud, parameters: EchoParameters, motion: CardiacMotion) -> CardiacMotion:
    """Septum and posterior wall as two bands across the sector, the aortic root and the left atrium to their right."""
    rng, p, depth = cloud.rng, parameters.tissue, parameters.depth
    top, cavity = depth * rng.uniform(0.26, 0.36), rng.uniform(42, 64)
    slope, right = rng.uniform(-0.15, 0.2), rng.uniform(0, 18)
    shortening = cavity * 0.6 * parameters.ejection_fraction / 100
    septal_share = rng.uniform(0.25, 0.5)

    def line(left: float, end: float, level: float, moved: float, bow: float = 0.0) -> Outline:
        x = np.linspace(left, end, 80)
        rest = level + slope * x + bow * ((x - right) / 60) ** 2
        return Outline(np.stack([x, rest], axis=1), np.stack([x, rest + moved], axis=1))

    thickness, growth, down = rng.uniform(8, 12), rng.uniform(1, 5), septal_share * shortening
    up = down - shortening
    left_edge, right_edge, root = -0.8 * depth, 0.8 * depth, rng.uniform(26, 36)
    forward = -rng.uniform(2, 8)  # movement of the aortic root in systole
    bottom = top + cavity
    walls = [
        (line(left_edge, right, top - thickness, down - growth, 8), line(left_edge, right, top, down, 8), 0.0),
        (line(left_edge, right + 15, bottom, up, -8), line(left_edge, right + 15, bottom + 9, up + growth, -8), -2.0),
        (line(left_edge, right_edge, top - 34, 1), line(left_edge, right_edge, top - 38, 0), -6.0),
        (line(right, right_edge, top - 4, forward), line(right, right_edge, top - 1, forward), 2.0),
        (line(right, right_edge, top + root - 4, forward), line(right, right_edge, top + root - 1, forward), 2.0),
        (line(right + 15, right_edge, bottom + 12, -1), line(right + 15, right_edge, bottom + 15, -1), 2.0),
    ]
    for inner, outer, level in walls:
        _add_band(cloud, parameters, inner, outer, level + max(p.septum_level, -8))
    # the anterior mitral leaflet hangs on the back wall of the aorta and swings towards the septum
    count = 120
    reach = rng.uniform(0, rng.uniform(20, 28), count)[:, None]
    hinge = np.array([right, top + root + slope * right]) + rng.normal(0, 0.6, (count, 2))
    swing = (2, reach * np.array([-0.45, 0.89]), reach * np.array([-0.95, -0.3]))
    cloud.add(hinge, np.broadcast_to([0.0, forward], (count, 2)), max(p.valve_level, -12), leaflet=swing)
    cusp = line(right + 2, right + 6, top + root / 2, forward)
    cloud.add_blob(cusp, 0, 2, 40, max(p.valve_level, -12))
    between = [walls[2][1], walls[5][1]]
    chamber = np.concatenate([between[0].end_diastole, between[1].end_diastole[::-1], walls[1][1].end_diastole[::-1]])
    add_surroundings(cloud, p, depth, _half_angle(parameters), [chamber], [walls[1][1], walls[2][1]])
    count = int(0.1 * depth**2)
    blood = np.stack([rng.uniform(left_edge, right_edge, count), rng.uniform(top - 30, bottom + 10, count)], axis=1)
    cloud.add(blood, np.zeros((count, 2)), p.blood_level)
    return motion


def _lung(cloud: ScattererCloud, parameters: EchoParameters, motion: CardiacMotion) -> CardiacMotion:
    """Pleura that slides with breathing between two ribs, its echoes (A-lines), and rays below it (B-lines)."""
    rng, depth, half_angle = cloud.rng, parameters.depth, _half_angle(parameters)
    pleura, gap = rng.uniform(16, 30), rng.uniform(0.5, 0.8) * half_angle
    count = int(0.5 * depth**2 * half_angle)
    angle, radius = rng.uniform(-half_angle, half_angle, count), depth * np.sqrt(rng.random(count))
    visible = (np.abs(angle) < gap) | (radius < 0.7 * pleura)
    soft = radius < pleura
    level = np.where(soft, -6 + 4 * np.sin(radius * rng.uniform(0.6, 1.2)), rng.uniform(-30, -18))

    def add(angle: np.ndarray, radius: np.ndarray, level: np.ndarray | float, follows: np.ndarray | float) -> None:
        points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        cloud.add(points, np.zeros(points.shape), level, drift_weight=follows)

    add(angle[visible], radius[visible], level[visible], np.where(soft, 0.1, 1.0)[visible])
    for number in range(1, int(depth / pleura) + 1):
        across = rng.uniform(-gap, gap, 500)
        add(across, number * pleura + rng.normal(0, 0.6, 500), 6 - 9.0 * (number - 1), 1.0 if number == 1 else 0.3)
    for _ in range(rng.integers(0, 5)):
        ray = rng.uniform(-gap, gap) + rng.normal(0, 0.012, 500)
        add(ray, rng.uniform(pleura, depth, 500), rng.uniform(-8, 2), 1.0)
    for side in (-1, 1):
        add(side * gap + rng.normal(0, 0.08, 150), 0.7 * pleura + rng.normal(0, 0.8, 150), 6.0, 0.1)
    breath = motion.drift / max(parameters.motion.breathing_amplitude, 1e-3) * rng.uniform(4, 14) * np.array([1, 0.15])
    still = np.zeros_like(motion.contraction)
    return dataclasses.replace(motion, contraction=still, lead=still, mitral_opening=still, drift=breath)


def _run_strip(
    draw: Callable[[np.random.Generator, np.ndarray, int], np.ndarray],
    rng: np.random.Generator,
    num_frames: int,
    fps: float,
    size: int,
) -> np.ndarray:
    """Show a strip that scrolls past, or that a bar writes over from left to right again and again."""
    columns_per_second = size / rng.uniform(1.5, 4)
    written = size + np.arange(num_frames) * columns_per_second / fps  # columns so far, at every frame
    length = int(written[-1]) + 1
    strip = draw(rng, np.arange(length) / columns_per_second, size)  # (size, length)
    scrolls = rng.random() < 0.5
    frames = np.zeros((num_frames, size, size), dtype=np.uint8)
    for frame, end in zip(frames, written.astype(int), strict=True):
        if scrolls:
            frame[:] = strip[:, end - size : end]
        else:
            column = np.arange(size)
            frame[:] = strip[:, end - 1 - (end - 1 - column) % size]
            frame[:, end % size] = 0
    top, bottom = (int(size * rng.uniform(0, 0.25)) for _ in range(2))
    frames[:, :top], frames[:, size - bottom :] = 0, 0
    return frames


def _beat(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """Place within the beat, from 0 to 1, at every moment."""
    return (seconds * rng.uniform(45, 130) / 60 + rng.random()) % 1


def _speckle(rng: np.random.Generator, shape: tuple[int, int], grain: tuple[float, float]) -> np.ndarray:
    """Amplitude of speckle with a mean of 1."""
    speckle = np.hypot(*gaussian_filter(rng.standard_normal((2, *shape)), (0, *grain)))
    return speckle / speckle.mean()


def _draw_m_mode(rng: np.random.Generator, seconds: np.ndarray, size: int) -> np.ndarray:
    beat = _beat(rng, seconds)
    wave = np.sin(np.pi * np.clip(beat / 0.4, 0, 1)) ** 2 + 0.2 * np.sin(np.pi * np.clip((beat - 0.8) / 0.2, 0, 1))
    row = np.arange(size)
    share = np.interp(row, np.sort(rng.uniform(0, size, 5)), rng.uniform(-0.1, 0.1, 5))  # of the picture
    rest = row[:, None] - size * share[:, None] * wave  # (size, length), where this tissue lies at end diastole
    layers = gaussian_filter(rng.standard_normal(size), size / 28)
    level = np.exp(rng.uniform(0.6, 1.2) * layers / layers.std())
    speckle = _speckle(rng, (size, len(seconds)), (0.8, 1.5))
    speckle = map_coordinates(speckle, [rest, np.broadcast_to(np.arange(len(seconds)), rest.shape)], order=1)
    bright = np.interp(rest, row, level) * speckle
    return np.clip(180 * (bright / np.percentile(bright, 95)) ** rng.uniform(0.5, 1), 0, 255).astype(np.uint8)


def _draw_spectral_doppler(rng: np.random.Generator, seconds: np.ndarray, size: int) -> np.ndarray:
    beat, sign = _beat(rng, seconds), rng.choice([-1, 1])
    if rng.random() < 0.5:  # outflow
        wave = np.sin(np.pi * np.clip(beat / 0.38, 0, 1)) ** 0.8
    else:  # early and atrial filling
        wave = np.exp(-(((beat - 0.5) / 0.08) ** 2)) + rng.uniform(0.4, 1.2) * np.exp(-(((beat - 0.85) / 0.05) ** 2))
    base = size * (0.5 + 0.25 * sign)
    velocity = sign * (base - np.arange(size)[:, None]) / (size * rng.uniform(0.3, 0.6))  # (size, 1)
    inside = 1 / (1 + np.exp((velocity - wave) / 0.03)) / (1 + np.exp((0.04 - velocity) / 0.01))
    speckle = _speckle(rng, (size, len(seconds)), (0.7, 0.7))
    filled = rng.uniform(0.15, 1) + np.exp(-(((velocity - 0.9 * wave) / 0.15) ** 2))
    picture = rng.uniform(60, 120) * speckle * (inside * filled + rng.uniform(0.02, 0.15))
    picture[int(base)] = 200
    return np.clip(picture, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, num_frames: int, size: int) -> np.ndarray:
    noise = rng.standard_normal((num_frames, size, size), dtype=np.float32)
    noise = gaussian_filter(noise, (rng.choice([0.0, 1.0, 3.0]), *[rng.choice([0.0, 0.8, 2.5])] * 2))
    return np.clip(rng.uniform(30, 130) + rng.uniform(20, 70) * noise / noise.std(), 0, 255).astype(np.uint8)


def _moving_shapes(rng: np.random.Generator, num_frames: int, size: int) -> np.ndarray:
    count = rng.integers(3, 9)
    place, speed = rng.uniform(0, size, (count, 2)), rng.normal(0, size / 60, (count, 2))
    radius, pulse = size * rng.uniform(0.04, 0.2, count), rng.uniform(0, 0.3, count)
    rounds, grey = rng.random(count) < 0.5, rng.integers(60, 256, count)
    background, beat = int(rng.integers(0, 60)), rng.uniform(0.05, 0.2)
    frames = []
    for number in range(num_frames):
        picture = Image.new("L", (size, size), background)
        draw = ImageDraw.Draw(picture)
        # reflected at the edges
        centres = size - np.abs((place + number * speed) % (2 * size) - size)
        sizes = radius * (1 + pulse * np.sin(beat * number))
        for (x, y), r, is_round, level in zip(centres, sizes, rounds, grey, strict=True):
            (draw.ellipse if is_round else draw.rectangle)((x - r, y - r, x + r, y + r), fill=int(level))
        frames.append(np.asarray(picture))
    return np.stack(frames)


def _scrolling_text(rng: np.random.Generator, num_frames: int, size: int) -> np.ndarray:
    speed, spacing = rng.uniform(0.3, 2.5), int(rng.integers(9, 18))
    height = size + int(speed * num_frames) + 1
    page = Image.new("L", (size, height), int(rng.choice([0, 0, 30, 230])))
    draw = ImageDraw.Draw(page)
    ink = 20 if page.getpixel((0, 0)) == 230 else int(rng.integers(120, 256))
    for row in range(0, height, spacing):
        draw.text((int(rng.integers(0, size // 4)), row), " ".join(rng.choice(_WORDS, 5)), fill=ink)
    lines = np.asarray(page)
    return np.stack([lines[int(speed * number) :][:size] for number in range(num_frames)])


_VIEWS: dict[str, Callable[[ScattererCloud, EchoParameters, CardiacMotion], CardiacMotion]] = {
    "short_axis": _short_axis,
    "long_axis": _long_axis,
    "lung": _lung,
}
_STRIPS = {"m_mode": _draw_m_mode, "spectral_doppler": _draw_spectral_doppler}
_PICTURES = {"noise": _noise, "moving_shapes": _moving_shapes, "scrolling_text": _scrolling_text}
