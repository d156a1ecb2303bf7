"""Apical four-chamber anatomy: the outlines of chambers and walls at end diastole and at end systole.

Heart coordinates are in mm: the left-ventricular apex is the origin, the long axis points along +y to the middle of
the mitral annulus, +x points to the lateral wall (right in the image). World coordinates are in mm too: the transducer
is the origin, x is lateral, y is depth.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.optimize import brentq

from .parameters import fixed_parameter, parameter


__all__ = [
    "AnatomyParameters",
    "FourChamberHeart",
    "LeftVentricle",
    "Outline",
    "disk_volume",
    "ejection_fraction",
    "outward_normals",
    "smoothstep",
]

_NUM_DISKS = 20


@dataclasses.dataclass(frozen=True)
class AnatomyParameters:
    """Size, shape, contraction pattern and position of one heart; each field's metadata holds its range and unit."""

    end_diastolic_volume: float = parameter(55, 165, "mL", "left-ventricular volume at end diastole")
    elongation: float = parameter(1.5, 1.95, "", "long axis over largest diameter at end diastole")
    widest_level: float = parameter(0.50, 0.68, "", "where the ventricle is widest, 0 = apex, 1 = annulus")
    annulus_ratio: float = parameter(0.66, 0.84, "", "mitral annulus over largest diameter")
    apex_exponent: float = parameter(1.9, 2.5, "", "exponent of the superellipse that rounds the apex")
    septal_share: float = parameter(0.44, 0.53, "", "share of the width on the septal side of the long axis")
    bend: float = parameter(-0.05, 0.05, "", "sideways bow of the cavity over the largest diameter")
    septal_thickness: float = parameter(7.5, 12.0, "mm", "septum at end diastole")
    lateral_thickness: float = parameter(7.0, 11.5, "mm", "lateral wall at end diastole")
    apical_thinning: float = parameter(0.55, 0.85, "", "apical wall over the mean of septum and lateral wall")
    longitudinal_share: float = parameter(0.14, 0.30, "", "share of the (logarithmic) emptying due to shortening")
    base_to_apex_gradient: float = parameter(-0.3, 0.3, "", "how much more the base contracts than the apex")
    septal_excursion: float = parameter(0.7, 1.05, "", "contraction of the septal side, lateral side = 2 - this")
    hypokinesia: float = parameter(0.0, 0.7, "", "contraction lost at the centre of a weak segment")
    hypokinesia_position: float = parameter(-0.95, 0.95, "", "weak segment: -1 septal base, 1 lateral base")
    apex_descent: float = parameter(-1.0, 3.0, "mm", "movement of the apex towards the base in systole")
    rocking: float = parameter(-4.0, 4.0, "degree", "turn of the long axis in systole")
    systolic_shift: float = parameter(-2.0, 2.0, "mm", "sideways movement of the whole heart in systole")
    rv_width: float = parameter(28.0, 42.0, "mm", "right-ventricular base at end diastole")
    rv_apex_level: float = parameter(0.15, 0.38, "", "level of the right-ventricular apex along the left long axis")
    rv_bulge: float = parameter(0.25, 0.55, "", "outward bow of the right-ventricular free wall over its width")
    tapse: float = parameter(11.0, 24.0, "mm", "tricuspid annular plane systolic excursion")
    rv_inward_motion: float = parameter(2.0, 7.0, "mm", "inward movement of the right-ventricular free wall")
    la_depth: float = parameter(34.0, 54.0, "mm", "left atrium from annulus to roof at end diastole")
    la_width_ratio: float = parameter(1.05, 1.45, "", "left-atrial width over mitral annulus")
    ra_depth: float = parameter(32.0, 50.0, "mm", "right atrium from annulus to roof at end diastole")
    ra_width_ratio: float = parameter(1.05, 1.40, "", "right-atrial width over tricuspid annulus")
    tilt: float = parameter(-13.0, 2.0, "degree", "turn of the long axis, negative: base to the right")
    apex_depth: float = parameter(20.0, 36.0, "mm", "depth of the left-ventricular apex")
    apex_offset: float = parameter(-1.0, 8.0, "mm", "lateral position of the left-ventricular apex")
    hypokinesia_width: float = fixed_parameter(0.3, "", "half width of the weak segment along the wall")
    depth_below_annulus: float = fixed_parameter(1.0, "", "depth shown below the annulus, over the usual choice")


@dataclasses.dataclass(frozen=True)
class Outline:
    """The same material points at end diastole and at end systole: two `(points, 2)` arrays of x, y in mm."""

    end_diastole: np.ndarray
    end_systole: np.ndarray

    @property
    def displacement(self) -> np.ndarray:
        """Movement from end diastole to end systole, `(points, 2)` in mm."""
        return self.end_systole - self.end_diastole

    def at(self, contraction: float) -> np.ndarray:
        """Position at a contraction between 0 (end diastole) and 1 (end systole), `(points, 2)` in mm."""
        return self.end_diastole + contraction * self.displacement


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Monotone step from 0 to 1 with zero slope at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def outward_normals(curve: np.ndarray) -> np.ndarray:
    """Unit normals of a curve `(points, 2)`, away from the cavity on its right-hand side."""
    tangent = np.gradient(curve, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _bezier(start: np.ndarray, first: np.ndarray, second: np.ndarray, end: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3 * end


class LeftVentricle:
    """Left-ventricular cavity and wall whose ejection fraction in percent is exact by the method of disks.

    Along the wall runs `s` from -1 (septal annulus) over 0 (apex) to 1 (lateral annulus); the level along the long
    axis is `s**2`, which places points densely where the apex curves.
    """

    def __init__(self, parameters: AnatomyParameters, target_ejection_fraction: float) -> None:
        if not 1 <= target_ejection_fraction <= 99:
            raise ValueError(f"ejection_fraction must be within [1, 99] percent, got {target_ejection_fraction}")
        self.parameters = parameters
        unit_volume = self._disk_volume(length=1.0, diameter=1 / parameters.elongation, contraction=0.0)
        scale = (parameters.end_diastolic_volume / unit_volume) ** (1 / 3)
        self.length = scale
        self.diameter = scale / parameters.elongation
        remaining = 1 - target_ejection_fraction / 100
        self.systolic_length = self.length * remaining**parameters.longitudinal_share

        def excess_volume(contraction: float) -> float:
            volume = self._disk_volume(self.systolic_length, self.diameter, contraction)
            return volume - remaining * parameters.end_diastolic_volume

        self.contraction = brentq(excess_volume, 0.0, 50.0, xtol=1e-14, rtol=1e-14)

    def half_widths(self, s: np.ndarray, diameter: float, contraction: float) -> np.ndarray:
        """Signed distance from the long axis to the wall at the positions `s`, in the unit of `diameter`."""
        p = self.parameters
        level = s**2
        below = np.clip(level / p.widest_level, 0, 1)
        beyond = np.clip((level - p.widest_level) / (1 - p.widest_level), 0, 1)
        profile = (1 - (1 - below) ** p.apex_exponent) ** (1 / p.apex_exponent) - (1 - p.annulus_ratio) * beyond**2
        share = np.where(s < 0, p.septal_share, 1 - p.septal_share)
        bow = np.sign(s) * p.bend * np.sin(np.pi * level)
        width = diameter * (share + bow) * profile
        return np.sign(s) * width * np.exp(-contraction * self._contraction_pattern(s))

    def _contraction_pattern(self, s: np.ndarray) -> np.ndarray:
        """Relative radial contraction along the wall, 1 on average."""
        p = self.parameters
        side = 1 + (1 - p.septal_excursion) * np.tanh(3 * s)
        weak_segment = 1 - p.hypokinesia * np.exp(-(((s - p.hypokinesia_position) / p.hypokinesia_width) ** 2))
        return (1 + p.base_to_apex_gradient * (2 * s**2 - 1)) * side * weak_segment

    def disk_ends(self, diameter: float, contraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Left and right end of each disk's chord, measured from the long axis."""
        s = np.sqrt((np.arange(_NUM_DISKS) + 0.5) / _NUM_DISKS)
        return self.half_widths(-s, diameter, contraction), self.half_widths(s, diameter, contraction)

    def _disk_volume(self, length: float, diameter: float, contraction: float) -> float:
        return disk_volume(self.tracing(length, diameter, contraction))

    def tracing(self, length: float, diameter: float, contraction: float) -> np.ndarray:
        """Long axis and chords in heart coordinates, `(1 + disks, 4)` of X1, Y1, X2, Y2."""
        left, right = self.disk_ends(diameter, contraction)
        heights = length * (np.arange(_NUM_DISKS) + 0.5) / _NUM_DISKS
        chords = np.stack([left, heights, right, heights], axis=1)
        return np.concatenate([[[0.0, 0.0, 0.0, length]], chords])

    def endocardium(self, s: np.ndarray, *, systolic: bool) -> np.ndarray:
        """Endocardial outline in heart coordinates, `(points, 2)` in mm."""
        length = self.systolic_length if systolic else self.length
        x = self.half_widths(s, self.diameter, self.contraction if systolic else 0.0)
        return np.stack([x, length * s**2], axis=1)

    def wall_thickness(self, s: np.ndarray, *, systolic: bool) -> np.ndarray:
        """Wall thickness in mm; in systole the wall of an incompressible ring that shortens and narrows."""
        p = self.parameters
        sides = np.where(s < 0, p.septal_thickness, p.lateral_thickness)
        apical = p.apical_thinning * (p.septal_thickness + p.lateral_thickness) / 2
        thickness = apical + (sides - apical) * smoothstep(np.abs(s) / 0.7)
        if not systolic:
            return thickness
        radius = np.abs(self.half_widths(s, self.diameter, 0.0))
        systolic_radius = np.abs(self.half_widths(s, self.diameter, self.contraction))
        ring = ((radius + thickness) ** 2 - radius**2) * self.length / self.systolic_length
        return np.minimum(np.sqrt(systolic_radius**2 + ring) - systolic_radius, 1.9 * thickness)


class FourChamberHeart:
    """Outlines of the four chambers and their walls in world coordinates.

    Args:
        parameters: Size, shape, contraction pattern and position.
        target_ejection_fraction: Ejection fraction of the left ventricle in percent, within [1, 99].
    """

    def __init__(self, parameters: AnatomyParameters, target_ejection_fraction: float) -> None:
        self.parameters = parameters
        self.left_ventricle = LeftVentricle(parameters, target_ejection_fraction)
        wall = np.linspace(-1, 1, 97)
        self.wall_position = wall
        lv = self.left_ventricle
        endo = [lv.endocardium(wall, systolic=systolic) for systolic in (False, True)]
        epi = [
            inner + lv.wall_thickness(wall, systolic=bool(systolic))[:, None] * outward_normals(inner)
            for systolic, inner in enumerate(endo)
        ]
        self.lv_endocardium = self._outline(*endo)
        self.lv_epicardium = self._outline(*epi)
        self._add_right_ventricle(*epi)
        self._add_atria(endo)

    def to_world(self, points: np.ndarray, *, systolic: bool) -> np.ndarray:
        """Heart coordinates of end diastole or end systole placed in the world, `(points, 2)` in mm."""
        p = self.parameters
        angle = math.radians(p.tilt + (p.rocking if systolic else 0.0))
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = np.array([p.systolic_shift, p.apex_descent]) if systolic else np.zeros(2)
        return points @ rotation.T + shift + np.array([p.apex_offset, p.apex_depth])

    def tracing(self, *, systolic: bool) -> np.ndarray:
        """Long axis and disk chords of the left ventricle in world coordinates, `(21, 4)` in mm."""
        lv = self.left_ventricle
        length = lv.systolic_length if systolic else lv.length
        rows = lv.tracing(length, lv.diameter, lv.contraction if systolic else 0.0)
        return self.to_world(rows.reshape(-1, 2), systolic=systolic).reshape(-1, 4)

    def _outline(self, end_diastole: np.ndarray, end_systole: np.ndarray) -> Outline:
        return Outline(self.to_world(end_diastole, systolic=False), self.to_world(end_systole, systolic=True))

    def _add_right_ventricle(self, epi_diastole: np.ndarray, epi_systole: np.ndarray) -> None:
        """Free wall from the septum near the apex to the lateral tricuspid annulus, and the septal tricuspid hinge."""
        p = self.parameters
        apex_index = int(np.argmin(np.abs(self.wall_position + math.sqrt(p.rv_apex_level))))
        hinge_index = int(np.argmin(np.abs(self.wall_position + math.sqrt(0.93))))
        walls, hinges, annuli = [], [], []
        for systolic, epi in enumerate((epi_diastole, epi_systole)):
            start, hinge = epi[apex_index], epi[hinge_index]
            annulus = epi_diastole[hinge_index] + np.array([-p.rv_width, 1.0])
            if systolic:
                annulus = annulus + np.array([0.4 * p.rv_inward_motion, -p.tapse])
            t = np.linspace(0, 1, 41)[:, None]
            inward = 1.4 * p.rv_inward_motion if systolic else 0.0
            bow = p.rv_bulge * p.rv_width + 4 - inward
            first = start + np.array([-0.55 * bow, 0.05 * (annulus[1] - start[1])])
            second = annulus + np.array([-0.9 * bow, -0.45 * (annulus[1] - start[1])])
            walls.append(_bezier(start, first, second, annulus, t))
            hinges.append(hinge[None])
            annuli.append(annulus[None])
        self.rv_free_wall = self._outline(*walls)
        self.rv_septal_side = Outline(
            self.lv_epicardium.end_diastole[hinge_index : apex_index + 1],
            self.lv_epicardium.end_systole[hinge_index : apex_index + 1],
        )
        self.tricuspid_annulus = self._outline(
            np.concatenate([hinges[0], annuli[0]]), np.concatenate([hinges[1], annuli[1]])
        )

    def _add_atria(self, endocardium: list[np.ndarray]) -> None:
        """Atrial outlines from the septal to the lateral hinge; the roof stays while the annulus moves."""
        p = self.parameters
        self.mitral_annulus = self._outline(endocardium[0][[0, -1]], endocardium[1][[0, -1]])
        self.left_atrium = self._atrium(self.mitral_annulus, p.la_depth, p.la_width_ratio, outward=1.0)
        self.right_atrium = self._atrium(self.tricuspid_annulus, p.ra_depth, p.ra_width_ratio, outward=-1.0)

    def _atrium(self, annulus: Outline, depth: float, width_ratio: float, outward: float) -> Outline:
        septal, lateral = annulus.end_diastole
        half = (lateral - septal) / 2
        axis = np.array([-half[1], half[0]]) * outward
        axis = axis / np.linalg.norm(axis)
        angle = np.linspace(0, np.pi, 49)[:, None]
        down = np.sin(angle) ** 0.75
        # the atrium widens below the annulus, mostly away from the septum between the atria
        widening = 1 + (width_ratio - 1) * np.sin(angle) ** 0.5 * np.where(angle < np.pi / 2, 0.25, 1.75)
        diastole = (septal + lateral) / 2 - half * np.cos(angle) * widening + axis * depth * down
        along = (1 - np.cos(angle)) / 2
        annulus_movement = annulus.displacement[0] * (1 - along) + annulus.displacement[1] * along
        return Outline(diastole, diastole + annulus_movement * (1 - down))


def disk_volume(tracing: np.ndarray, mm_per_pixel: float = 1.0) -> float:
    """Volume of a left ventricle traced as EchoNet-Dynamic traces it.

    Each chord is the diameter of a circular disk; all disks have the same height, the length of the long axis divided
    by the number of disks (Lang et al., J Am Soc Echocardiogr 2015, section on the method of disks).

    Args:
        tracing: `(1 + disks, 4)` array of X1, Y1, X2, Y2 in pixels: the long axis, then the chords that cross it.
        mm_per_pixel: Size of a pixel in mm.

    Returns:
        The volume in mL, or in pixels^3 / 1000 if `mm_per_pixel` is 1.

    Raises:
        ValueError: If `tracing` is not a long axis and at least one chord.
    """
    tracing = np.asarray(tracing, dtype=np.float64)
    if tracing.ndim != 2 or tracing.shape[1] != 4 or len(tracing) < 2:
        raise ValueError(
            f"a tracing has the shape (1 + disks, 4): long axis first, then the chords; got {tracing.shape}"
        )
    lengths = np.hypot(tracing[:, 2] - tracing[:, 0], tracing[:, 3] - tracing[:, 1])
    disk_height = lengths[0] / (len(tracing) - 1)
    return float(np.pi / 4 * np.sum(lengths[1:] ** 2) * disk_height * mm_per_pixel**3 / 1000)


def ejection_fraction(end_diastolic_volume: float, end_systolic_volume: float) -> float:
    """Ejection fraction in percent, 100 (EDV - ESV) / EDV."""
    return 100 * (end_diastolic_volume - end_systolic_volume) / end_diastolic_volume
