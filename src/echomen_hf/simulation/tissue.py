"""Scatterers that belong to the tissue and move with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

from .anatomy import FourChamberHeart, Outline, outward_normals
from .parameters import fixed_parameter, parameter
from .scatterers import ScattererCloud, Scatterers, interpolate, ribbon_count, smooth_noise


__all__ = ["TissueParameters", "add_surroundings", "build_scatterers"]

_ABSENT = -50.0  # dB at and below which a structure is left out


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
    wall_edge_gain: float = fixed_parameter(3.0, "dB", "edges of the ventricular wall over its middle")
    anisotropy: float = fixed_parameter(0.0, "dB", "walls across the beam over walls along it")
    wall_blur: float = fixed_parameter(0.0, "mm", "standard deviation of the fraying of the walls")
    trabeculation_level: float = fixed_parameter(-60.0, "dB", "trabeculae on the inside of the apical half")
    num_trabeculae: float = fixed_parameter(0.0, "", "number of trabeculae, rounded down")
    second_papillary_level: float = fixed_parameter(-60.0, "dB", "papillary muscle at the septal side")
    papillary_radius: float = fixed_parameter(3.5, "mm", "radius of the papillary muscles")
    moderator_band_level: float = fixed_parameter(-60.0, "dB", "muscle bridge across the right ventricle")


def _offset(outline: Outline, distance: float | np.ndarray) -> Outline:
    """The outline moved along its normal, away from the cavity on its right-hand side."""
    return Outline(
        *(
            curve + np.reshape(distance, (-1, 1)) * outward_normals(curve)
            for curve in (outline.end_diastole, outline.end_systole)
        )
    )


def build_scatterers(
    heart: FourChamberHeart,
    parameters: TissueParameters,
    rng: np.random.Generator,
    *,
    depth: float,
    half_angle: float,
) -> Scatterers:
    """Fill the sector of this depth in mm and half angle in radians: walls, valves, blood and the surroundings."""
    cloud = ScattererCloud(rng, parameters.decorrelation, parameters.wall_blur, parameters.anisotropy)
    _add_left_ventricle(cloud, heart, parameters)
    _add_right_ventricle_and_atria(cloud, heart, parameters)
    _add_valves(cloud, heart, parameters)
    _add_surroundings(cloud, heart, parameters, depth, half_angle)
    return cloud.build(heart.tracing(systolic=False)[0].reshape(2, 2))


def _add_left_ventricle(cloud: ScattererCloud, heart: FourChamberHeart, p: TissueParameters) -> None:
    s = heart.wall_position
    apical = np.exp(-((s / 0.35) ** 2))
    level = np.where(s < 0, p.septum_level, p.lateral_wall_level) * (1 - apical) + p.apex_level * apical
    # walls that run along the beam send back less than walls across it, the apex is closest to the beam axis
    endo, epi = heart.lv_endocardium, heart.lv_epicardium
    cloud.add_ribbon(endo, epi, ribbon_count(endo, epi, p.density), level, p.patchiness, p.wall_edge_gain)
    lateral = slice(int(0.68 * len(s)), None)
    outer = Outline(epi.end_diastole[lateral], epi.end_systole[lateral])
    pericardium = _offset(outer, 2.0)
    level = np.full(len(outer.end_diastole), p.pericardium_level)
    cloud.add_ribbon(outer, pericardium, ribbon_count(outer, pericardium, 1.2 * p.density), level, p.patchiness)

    count = int(0.2 * heart.left_ventricle.diameter * heart.left_ventricle.length)
    fraction, along = cloud.rng.uniform(0.02, 0.98, count), cloud.rng.uniform(0, 0.97, count)
    centre = len(s) // 2
    positions = []
    for phase in ("end_diastole", "end_systole"):
        wall = getattr(endo, phase)
        septal = interpolate(wall[centre::-1], np.sqrt(along) * centre)
        lateral_side = interpolate(wall[centre:], np.sqrt(along) * centre)
        positions.append(fraction[:, None] * septal + (1 - fraction)[:, None] * lateral_side)
    cloud.add(positions[0], positions[1] - positions[0], p.blood_level)
    # the papillary muscle lies on the inside of the lateral wall, an eighth of the way across
    index = int((1 + math.sqrt(p.papillary_position)) / 2 * len(s))
    papillary = _inside(endo, index, 0.125)
    cloud.add_blob(papillary, 0, radius=p.papillary_radius, count=40, level=p.papillary_level)
    if p.second_papillary_level > _ABSENT:
        second = _inside(endo, len(s) - 1 - index, 0.15)
        cloud.add_blob(second, 0, radius=p.papillary_radius, count=40, level=p.second_papillary_level)
    for _ in range(int(p.num_trabeculae)):
        index = int(np.clip(centre + cloud.rng.normal(0, 0.25) * len(s), 1, len(s) - 2))
        trabecula = _inside(endo, index, cloud.rng.uniform(0, 0.16))
        level = p.trabeculation_level + cloud.rng.normal(0, 3)
        cloud.add_blob(trabecula, 0, radius=cloud.rng.uniform(1, 3), count=14, level=level)


def _inside(wall: Outline, index: int, share: float) -> Outline:
    """A point that moves with the cavity, `share` of the way from one point of its wall to the opposite one."""
    opposite = len(wall.end_diastole) - 1 - index
    return Outline(
        *(
            ((1 - share) * curve[index] + share * curve[opposite])[None]
            for curve in (wall.end_diastole, wall.end_systole)
        )
    )


def _add_right_ventricle_and_atria(cloud: ScattererCloud, heart: FourChamberHeart, p: TissueParameters) -> None:
    wall = heart.rv_free_wall
    # the free wall runs from the apex to the annulus: its outside is on the other hand than the left ventricle's
    outside = _offset(wall, -4.0)
    level = np.full(len(wall.end_diastole), p.right_ventricle_level)
    cloud.add_ribbon(wall, outside, ribbon_count(wall, outside, p.density), level, p.patchiness, edge_gain=2.0)
    if p.moderator_band_level > _ABSENT:
        # from the septum to the free wall, three quarters of the way to the apex of the right ventricle
        side, count = heart.rv_septal_side, 60
        ends = [getattr(side, phase)[len(side.end_diastole) * 2 // 3] for phase in ("end_diastole", "end_systole")]
        walls = [getattr(wall, phase)[len(wall.end_diastole) // 3] for phase in ("end_diastole", "end_systole")]
        share = cloud.rng.random(count)[:, None]
        start, end = (share * a + (1 - share) * b for a, b in zip(ends, walls, strict=True))
        cloud.add(start + cloud.rng.normal(0, 1, (count, 2)), end - start, p.moderator_band_level)
    for atrium, outward in ((heart.left_atrium, -1.0), (heart.right_atrium, 1.0)):
        outside = _offset(atrium, 3.0 * outward)
        points = len(atrium.end_diastole)
        # the wall between the atria is thin and often not seen in the middle
        fossa = -9.0 * np.exp(-(((np.arange(points) / points - 0.22) / 0.08) ** 2))
        level = p.atrial_wall_level + fossa
        cloud.add_ribbon(atrium, outside, ribbon_count(atrium, outside, p.density), level, p.patchiness)
        count = 260
        centre = atrium.end_diastole.mean(axis=0)
        spread = np.sqrt(cloud.rng.uniform(0, 0.9, count))[:, None]
        edge = atrium.end_diastole[cloud.rng.integers(0, points, count)]
        cloud.add(centre + spread * (edge - centre), np.zeros((count, 2)), p.blood_level)


def _add_valves(cloud: ScattererCloud, heart: FourChamberHeart, p: TissueParameters) -> None:
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
    cloud: ScattererCloud, heart: FourChamberHeart, p: TissueParameters, depth: float, half_angle: float
) -> None:
    free_wall = _offset(heart.rv_free_wall, -4.0).end_diastole
    septum = heart.lv_epicardium.end_diastole[: len(heart.wall_position) // 2]
    chambers = [
        heart.lv_epicardium.end_diastole,
        np.concatenate([free_wall, heart.tricuspid_annulus.end_diastole[::-1], septum]),
        _offset(heart.left_atrium, -3.0).end_diastole,
        _offset(heart.right_atrium, 3.0).end_diastole,
        np.concatenate([heart.mitral_annulus.end_diastole, heart.tricuspid_annulus.end_diastole]),
    ]
    add_surroundings(cloud, p, depth, half_angle, chambers, [heart.lv_epicardium, heart.rv_free_wall])


def add_surroundings(
    cloud: ScattererCloud,
    p: TissueParameters,
    depth: float,
    half_angle: float,
    chambers: Sequence[np.ndarray],
    walls: Sequence[Outline],
) -> None:
    """Fill the sector outside the chambers, polygons `(points, 2)` in mm, with tissue that the walls pull along."""
    rng = cloud.rng
    count = int(0.45 * depth**2 * half_angle)
    radius = depth * np.sqrt(rng.random(count))
    angle = rng.uniform(-half_angle, half_angle, count)
    points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    points = points[~_inside_polygons(chambers, points, depth)]

    noise = smooth_noise(rng, (16, 16), sigma=0.9)
    coordinates = [points[:, 1] / depth * 14, (points[:, 0] / depth + 1) * 7]
    variation = map_coordinates(noise, coordinates, order=1, mode="nearest")
    level = p.surroundings_level + p.surroundings_variation * variation
    # chest wall: bright layers under the transducer
    chest = np.exp(-points[:, 1] / 14)
    layers = np.sin(points[:, 1] * rng.uniform(0.7, 1.3) + rng.uniform(0, 6))
    level = np.minimum(level, -1) + chest * (17 + 4 * layers)

    boundary = np.concatenate([wall.end_diastole[::4] for wall in walls])
    movement = np.concatenate([wall.displacement[::4] for wall in walls])
    distance = np.linalg.norm(points[:, None] - boundary[None], axis=2)
    weights = np.exp(-distance / 4)
    total = weights.sum(axis=1, keepdims=True)
    nearness = np.exp(-distance.min(axis=1, keepdims=True) / 12)
    displacement = nearness * (weights @ movement) / np.maximum(total, 1e-12)
    cloud.add(points, displacement, level, drift_weight=0.4 + 0.6 * nearness[:, 0])


def _inside_polygons(polygons: Sequence[np.ndarray], points: np.ndarray, depth: float) -> np.ndarray:
    """Whether each point lies in one of the polygons."""
    pixels_per_mm = 2.0
    size = int(2 * depth * pixels_per_mm)
    mask = Image.new("1", (size, size))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        pixels = (polygon + np.array([depth, 0])) * pixels_per_mm
        draw.polygon([(float(x), float(y)) for x, y in pixels], fill=1)
    lookup = np.asarray(mask)
    column = np.clip(((points[:, 0] + depth) * pixels_per_mm).astype(int), 0, size - 1)
    row = np.clip((points[:, 1] * pixels_per_mm).astype(int), 0, size - 1)
    return lookup[row, column]
