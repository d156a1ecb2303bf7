"""Scatterers that belong to the tissue and move with it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from .anatomy import FourChamberHeart, Outline
from .motion import CardiacMotion
from .parameters import parameter


__all__ = ["Scatterers", "TissueParameters", "build_scatterers"]

_NUM_MODES = 6  # rest, contraction, mitral cos and sin, tricuspid cos and sin


@dataclasses.dataclass(frozen=True)
class TissueParameters:
    """Brightness of the tissues of one patient, in dB relative to the myocardium; ranges stand in the metadata."""

    density: float = parameter(0.55, 0.75, "1/mm^2", "scatterers in the myocardium")
    septum_level: float = parameter(-5.0, 4.0, "dB", "septum")
    lateral_wall_level: float = parameter(-22.0, -1.0, "dB", "lateral wall, which often drops out")
    apex_level: float = parameter(-9.0, 2.0, "dB", "apical wall")
    right_ventricle_level: float = parameter(-14.0, -1.0, "dB", "right-ventricular free wall")
    atrial_wall_level: float = parameter(-13.0, -1.0, "dB", "atrial walls")
    valve_level: float = parameter(-14.0, -4.0, "dB", "valve leaflets")
    annulus_level: float = parameter(-6.0, 3.0, "dB", "fibrous annuli and the crux of the heart")
    pericardium_level: float = parameter(-6.0, 6.0, "dB", "pericardium along the lateral wall")
    blood_level: float = parameter(-46.0, -32.0, "dB", "blood")
    surroundings_level: float = parameter(-18.0, -7.0, "dB", "lung, liver and chest wall around the heart")
    surroundings_variation: float = parameter(6.0, 9.0, "dB", "standard deviation of the surroundings' level")
    papillary_level: float = parameter(-26.0, -6.0, "dB", "papillary muscle at the lateral wall")
    decorrelation: float = parameter(2.5, 5.0, "rad", "standard deviation of the echo phase's turn in a contraction")
    papillary_position: float = parameter(0.35, 0.65, "", "level of the papillary muscle, 0 = apex, 1 = annulus")
    patchiness: float = parameter(5.0, 9.0, "dB", "standard deviation of the slow variation within a wall")


@dataclasses.dataclass(frozen=True)
class Scatterers:
    """Point scatterers whose positions are a sum of a few spatial modes with time courses.

    Args:
        modes: `(2, scatterers, modes)` float32 array in mm: rest position, displacement by a full contraction, and the
            swing of the mitral and the tricuspid leaflets (cosine and sine of the leaflet angle).
        drift_weight: `(scatterers,)`, share of the drift of the heart that each scatterer follows.
        amplitude: `(scatterers,)`, echo amplitude.
        phase: `(scatterers,)`, echo phase in radians at rest.
        phase_drift: `(scatterers,)`, turn of the phase in radians by a full contraction, which stands for the movement
            through the image plane.
    """

    modes: np.ndarray
    drift_weight: np.ndarray
    amplitude: np.ndarray
    phase: np.ndarray
    phase_drift: np.ndarray

    def echoes(self, motion: CardiacMotion, frames: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lateral position and depth in mm and phase in radians, each a `(frames, scatterers)` float32 array."""
        contraction = motion.contraction[frames]
        mitral = _leaflet_angle(motion.mitral_opening[frames])
        tricuspid = _leaflet_angle(0.9 * motion.mitral_opening[frames])
        leaflets = [np.cos(mitral), np.sin(mitral), np.cos(tricuspid), np.sin(tricuspid)]
        courses = np.stack([np.ones_like(contraction), contraction, *leaflets]).astype(np.float32)
        drift = motion.drift[frames].astype(np.float32)
        x, z = (courses.T @ self.modes[axis].T + drift[:, axis, None] * self.drift_weight[None] for axis in range(2))
        turn = (contraction + 0.15 * motion.drift[frames].sum(axis=1)).astype(np.float32)
        return x, z, self.phase + turn[:, None] * self.phase_drift


def _leaflet_angle(opening: np.ndarray) -> np.ndarray:
    """Angle between leaflet and annular plane in radians: a shallow tent when closed, towards the apex when open."""
    return np.radians(12 + 66 * opening)


class _Cloud:
    """Collects groups of scatterers before they become arrays."""

    def __init__(self, rng: np.random.Generator, decorrelation: float) -> None:
        self.rng = rng
        self.decorrelation = decorrelation
        self.modes: list[np.ndarray] = []
        self.drift_weight: list[np.ndarray] = []
        self.amplitude: list[np.ndarray] = []

    def add(
        self,
        end_diastole: np.ndarray,
        displacement: np.ndarray,
        level: np.ndarray | float,
        *,
        leaflet: tuple[int, np.ndarray, np.ndarray] | None = None,
        drift_weight: np.ndarray | float = 1.0,
    ) -> None:
        count = len(end_diastole)
        modes = np.zeros((2, count, _NUM_MODES))
        modes[:, :, 0], modes[:, :, 1] = end_diastole.T, displacement.T
        if leaflet is not None:
            first_mode, along, towards_apex = leaflet
            modes[:, :, first_mode], modes[:, :, first_mode + 1] = along.T, towards_apex.T
        self.modes.append(modes)
        self.drift_weight.append(np.broadcast_to(drift_weight, count))
        scatter = self.rng.rayleigh(1 / math.sqrt(2), count)
        self.amplitude.append(scatter * 10 ** (np.broadcast_to(level, count) / 20))

    def add_ribbon(
        self, inner: Outline, outer: Outline, count: int, level: np.ndarray, patchiness: float, edge_gain: float = 0.0
    ) -> None:
        """Fill the band between two outlines of equal length; `level` in dB is given per outline point."""
        along = self.rng.uniform(0, len(inner.end_diastole) - 1, count)
        across = self.rng.uniform(0, 1, count)
        keep = self.rng.random(count) < _relative_area(inner, outer, along)
        along, across = along[keep], across[keep]
        start, end = (
            (1 - across)[:, None] * _interpolate(getattr(inner, phase), along)
            + across[:, None] * _interpolate(getattr(outer, phase), along)
            for phase in ("end_diastole", "end_systole")
        )
        # long thin layers along the wall, and patches through all of it
        layers = _smooth_noise(self.rng, (len(inner.end_diastole) // 9 + 3, 6), sigma=0.5)
        patches = _smooth_noise(self.rng, (len(inner.end_diastole) // 5 + 3, 1))
        patch = map_coordinates(layers, [along / 9, across * 5], order=1)
        patch = (patch + 1.4 * map_coordinates(patches[:, 0], [along / 5], order=1)) / 1.7
        profile = edge_gain * np.exp(-np.minimum(across, 1 - across) / 0.12)
        self.add(start, end - start, _interpolate(level, along) + patchiness * patch + profile)

    def add_blob(self, outline: Outline, index: int, radius: float, count: int, level: float) -> None:
        """A round patch that moves with one point of an outline."""
        offset = self.rng.normal(0, radius / 1.5, (count, 2))
        centre, displacement = outline.end_diastole[index], outline.displacement[index]
        self.add(centre + offset, np.broadcast_to(displacement, (count, 2)), level)

    def build(self) -> Scatterers:
        amplitude = np.concatenate(self.amplitude).astype(np.float32)
        return Scatterers(
            modes=np.concatenate(self.modes, axis=1).astype(np.float32),
            drift_weight=np.concatenate(self.drift_weight).astype(np.float32),
            amplitude=amplitude,
            phase=self.rng.uniform(0, 2 * np.pi, len(amplitude)).astype(np.float32),
            phase_drift=(self.decorrelation * self.rng.standard_normal(len(amplitude))).astype(np.float32),
        )


def _interpolate(values: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis at fractional indices."""
    index = np.minimum(position.astype(np.intp), len(values) - 2)
    fraction = position - index
    if values.ndim == 2:
        fraction = fraction[:, None]
    return (1 - fraction) * values[index] + fraction * values[index + 1]


def _segment_areas(inner: Outline, outer: Outline) -> np.ndarray:
    """Area of each quadrilateral between two outlines at end diastole in mm^2."""
    a, b = inner.end_diastole, outer.end_diastole
    diagonal_1, diagonal_2 = b[1:] - a[:-1], a[1:] - b[:-1]
    return np.abs(diagonal_1[:, 0] * diagonal_2[:, 1] - diagonal_1[:, 1] * diagonal_2[:, 0]) / 2


def _relative_area(inner: Outline, outer: Outline, along: np.ndarray) -> np.ndarray:
    areas = _segment_areas(inner, outer)
    return areas[np.minimum(along.astype(np.intp), len(areas) - 1)] / areas.max()


def _ribbon_count(inner: Outline, outer: Outline, density: float) -> int:
    areas = _segment_areas(inner, outer)
    return int(density * areas.max() * len(areas))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float = 0.7) -> np.ndarray:
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def _offset(outline: Outline, distance: float | np.ndarray) -> Outline:
    """The outline moved along its normal, away from the cavity on its right-hand side."""
    moved = []
    for curve in (outline.end_diastole, outline.end_systole):
        tangent = np.gradient(curve, axis=0)
        normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        moved.append(curve + np.reshape(distance, (-1, 1)) * normal)
    return Outline(*moved)


def build_scatterers(
    heart: FourChamberHeart,
    parameters: TissueParameters,
    rng: np.random.Generator,
    *,
    depth: float,
    half_angle: float,
) -> Scatterers:
    """Fill the sector with scatterers: walls, valves, blood and the surroundings.

    Args:
        heart: Outlines of the chambers.
        parameters: Brightness of the tissues.
        rng: Source of randomness.
        depth: Depth of the sector in mm.
        half_angle: Half the opening angle of the sector in radians.

    Returns:
        All scatterers of the clip.
    """
    cloud = _Cloud(rng, parameters.decorrelation)
    _add_left_ventricle(cloud, heart, parameters)
    _add_right_ventricle_and_atria(cloud, heart, parameters)
    _add_valves(cloud, heart, parameters)
    _add_surroundings(cloud, heart, parameters, depth, half_angle)
    return cloud.build()


def _add_left_ventricle(cloud: _Cloud, heart: FourChamberHeart, p: TissueParameters) -> None:
    s = heart.wall_position
    apical = np.exp(-((s / 0.35) ** 2))
    level = np.where(s < 0, p.septum_level, p.lateral_wall_level) * (1 - apical) + p.apex_level * apical
    # walls that run along the beam send back less than walls across it, the apex is closest to the beam axis
    endo, epi = heart.lv_endocardium, heart.lv_epicardium
    cloud.add_ribbon(endo, epi, _ribbon_count(endo, epi, p.density), level, p.patchiness, edge_gain=3.0)
    lateral = slice(int(0.68 * len(s)), None)
    outer = Outline(epi.end_diastole[lateral], epi.end_systole[lateral])
    pericardium = _offset(outer, 2.0)
    level = np.full(len(outer.end_diastole), p.pericardium_level)
    cloud.add_ribbon(outer, pericardium, _ribbon_count(outer, pericardium, 1.2 * p.density), level, p.patchiness)

    count = int(0.2 * heart.left_ventricle.diameter * heart.left_ventricle.length)
    fraction, along = cloud.rng.uniform(0.02, 0.98, count), cloud.rng.uniform(0, 0.97, count)
    centre = len(s) // 2
    positions = []
    for phase in ("end_diastole", "end_systole"):
        wall = getattr(endo, phase)
        septal = _interpolate(wall[centre::-1], np.sqrt(along) * centre)
        lateral_side = _interpolate(wall[centre:], np.sqrt(along) * centre)
        positions.append(fraction[:, None] * septal + (1 - fraction)[:, None] * lateral_side)
    cloud.add(positions[0], positions[1] - positions[0], p.blood_level)
    # the papillary muscle lies on the inside of the lateral wall, an eighth of the way across
    index = int((1 + math.sqrt(p.papillary_position)) / 2 * len(s))
    papillary = Outline(
        *(
            (0.875 * wall[index] + 0.125 * wall[len(s) - 1 - index])[None]
            for wall in (endo.end_diastole, endo.end_systole)
        )
    )
    cloud.add_blob(papillary, 0, radius=3.5, count=40, level=p.papillary_level)


def _add_right_ventricle_and_atria(cloud: _Cloud, heart: FourChamberHeart, p: TissueParameters) -> None:
    wall = heart.rv_free_wall
    # the free wall runs from the apex to the annulus: its outside is on the other hand than the left ventricle's
    outside = _offset(wall, -4.0)
    level = np.full(len(wall.end_diastole), p.right_ventricle_level)
    cloud.add_ribbon(wall, outside, _ribbon_count(wall, outside, p.density), level, p.patchiness, edge_gain=2.0)
    for atrium, outward in ((heart.left_atrium, -1.0), (heart.right_atrium, 1.0)):
        outside = _offset(atrium, 3.0 * outward)
        points = len(atrium.end_diastole)
        # the wall between the atria is thin and often not seen in the middle
        fossa = -9.0 * np.exp(-(((np.arange(points) / points - 0.22) / 0.08) ** 2))
        level = p.atrial_wall_level + fossa
        cloud.add_ribbon(atrium, outside, _ribbon_count(atrium, outside, p.density), level, p.patchiness)
        count = 260
        centre = atrium.end_diastole.mean(axis=0)
        spread = np.sqrt(cloud.rng.uniform(0, 0.9, count))[:, None]
        edge = atrium.end_diastole[cloud.rng.integers(0, points, count)]
        cloud.add(centre + spread * (edge - centre), np.zeros((count, 2)), p.blood_level)


def _add_valves(cloud: _Cloud, heart: FourChamberHeart, p: TissueParameters) -> None:
    apex = heart.lv_endocardium
    middle = len(apex.end_diastole) // 2
    for first_mode, annulus in ((2, heart.mitral_annulus), (4, heart.tricuspid_annulus)):
        across = annulus.end_diastole[1] - annulus.end_diastole[0]
        towards_apex = apex.end_diastole[middle] - annulus.end_diastole.mean(axis=0)
        across_unit = across / np.linalg.norm(across)
        towards_apex = towards_apex - across_unit * (towards_apex @ across_unit)
        towards_apex /= np.linalg.norm(towards_apex)
        for hinge, sign, share in ((0, 1.0, 0.58), (1, -1.0, 0.46)):
            count = 90
            reach = cloud.rng.uniform(0, share, count)[:, None] * np.linalg.norm(across)
            thickness = cloud.rng.normal(0, 0.5, (count, 2))
            displacement = np.broadcast_to(annulus.displacement[hinge], (count, 2))
            leaflet = (first_mode, sign * reach * across_unit, reach * towards_apex)
            cloud.add(annulus.end_diastole[hinge] + thickness, displacement, p.valve_level, leaflet=leaflet)
            cloud.add_blob(annulus, hinge, radius=3.0, count=45, level=p.annulus_level)
    crux = Outline(
        (heart.mitral_annulus.end_diastole[:1] + heart.tricuspid_annulus.end_diastole[:1]) / 2,
        (heart.mitral_annulus.end_systole[:1] + heart.tricuspid_annulus.end_systole[:1]) / 2,
    )
    cloud.add_blob(crux, 0, radius=5.0, count=90, level=p.annulus_level - 2)


def _add_surroundings(
    cloud: _Cloud, heart: FourChamberHeart, p: TissueParameters, depth: float, half_angle: float
) -> None:
    rng = cloud.rng
    count = int(0.45 * depth**2 * half_angle)
    radius = depth * np.sqrt(rng.random(count))
    angle = rng.uniform(-half_angle, half_angle, count)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    points = points[~_inside_heart(heart, points, depth)]

    noise = _smooth_noise(rng, (16, 16), sigma=0.9)
    coordinates = [points[:, 1] / depth * 14, (points[:, 0] / depth + 1) * 7]
    variation = map_coordinates(noise, coordinates, order=1, mode="nearest")
    level = p.surroundings_level + p.surroundings_variation * variation
    # chest wall: bright layers under the transducer
    chest = np.exp(-points[:, 1] / 14)
    layers = np.sin(points[:, 1] * rng.uniform(0.7, 1.3) + rng.uniform(0, 6))
    level = np.minimum(level, -1) + chest * (17 + 4 * layers)

    boundary = np.concatenate([heart.lv_epicardium.end_diastole[::4], heart.rv_free_wall.end_diastole[::4]])
    movement = np.concatenate([heart.lv_epicardium.displacement[::4], heart.rv_free_wall.displacement[::4]])
    distance = np.linalg.norm(points[:, None] - boundary[None], axis=2)
    weights = np.exp(-distance / 4)
    total = weights.sum(axis=1, keepdims=True)
    nearness = np.exp(-distance.min(axis=1, keepdims=True) / 12)
    displacement = nearness * (weights @ movement) / np.maximum(total, 1e-12)
    cloud.add(points, displacement, level, drift_weight=0.4 + 0.6 * nearness[:, 0])


def _inside_heart(heart: FourChamberHeart, points: np.ndarray, depth: float) -> np.ndarray:
    """Whether each point lies in a chamber or a wall at end diastole."""
    pixels_per_mm = 2.0
    size = int(2 * depth * pixels_per_mm)
    mask = Image.new("1", (size, size))
    draw = ImageDraw.Draw(mask)
    free_wall = _offset(heart.rv_free_wall, -4.0).end_diastole
    septum = heart.lv_epicardium.end_diastole[: len(heart.wall_position) // 2]
    outlines = [
        heart.lv_epicardium.end_diastole,
        np.concatenate([free_wall, heart.tricuspid_annulus.end_diastole[::-1], septum]),
        _offset(heart.left_atrium, -3.0).end_diastole,
        _offset(heart.right_atrium, 3.0).end_diastole,
        np.concatenate([heart.mitral_annulus.end_diastole, heart.tricuspid_annulus.end_diastole]),
    ]
    for outline in outlines:
        pixels = (outline + np.array([depth, 0])) * pixels_per_mm
        draw.polygon([(float(x), float(y)) for x, y in pixels], fill=1)
    lookup = np.asarray(mask)
    column = np.clip(((points[:, 0] + depth) * pixels_per_mm).astype(int), 0, size - 1)
    row = np.clip((points[:, 1] * pixels_per_mm).astype(int), 0, size - 1)
    return lookup[row, column]
