"""Point scatterers that move with the heart."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from .anatomy import Outline
from .motion import CardiacMotion


__all__ = ["ScattererCloud", "Scatterers", "interpolate", "lead_share", "ribbon_count", "smooth_noise"]

_SIDE_WIDTH = 12.0  # mm from the long axis at which a wall clearly belongs to one side
_NUM_MODES = 6  # rest, contraction, mitral cos and sin, tricuspid cos and sin


@dataclasses.dataclass(frozen=True)
class Scatterers:
    """Point scatterers whose positions are a sum of a few spatial modes with time courses."""

    # (2, scatterers, modes), float32, mm: rest position, displacement by a full contraction, and the swing of the
    # mitral and the tricuspid leaflets (cosine and sine of the leaflet angle)
    modes: np.ndarray
    lead: np.ndarray  # (2, scatterers), float32, mm: displacement of the septal side ahead of the mean at a lead of 1
    drift_weight: np.ndarray  # (scatterers,), share of the drift of the heart that each one follows
    amplitude: np.ndarray  # (scatterers,)
    phase: np.ndarray  # (scatterers,), echo phase in radians at rest
    phase_drift: np.ndarray  # (scatterers,), its turn by a full contraction, for the movement through the image plane

    def echoes(self, motion: CardiacMotion, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lateral position and depth in mm and phase in radians, each a `(frames, scatterers)` float32 array."""
        contraction = motion.contraction[frames]
        mitral = _leaflet_angle(motion.mitral_opening[frames])
        tricuspid = _leaflet_angle(0.9 * motion.mitral_opening[frames])
        leaflets = [np.cos(mitral), np.sin(mitral), np.cos(tricuspid), np.sin(tricuspid)]
        courses = np.stack([np.ones_like(contraction), contraction, *leaflets]).astype(np.float32)
        drift = motion.drift[frames].astype(np.float32)
        x, z = (courses.T @ self.modes[axis].T + drift[:, axis, None] * self.drift_weight[None] for axis in range(2))
        if motion.lead.any():
            lead = motion.lead[frames, None].astype(np.float32)
            x, z = x + lead * self.lead[0], z + lead * self.lead[1]
        turn = (contraction + 0.15 * motion.drift[frames].sum(axis=1)).astype(np.float32)
        return x, z, self.phase + turn[:, None] * self.phase_drift


def _leaflet_angle(opening: np.ndarray) -> np.ndarray:
    """Angle in radians between leaflet and annular plane, for an opening from 0 (closed) to 1 (wide open)."""
    return np.radians(12 + 66 * opening)


class ScattererCloud:
    """Groups of scatterers, collected before they become arrays; `decorrelation` is in radians, `wall_blur` in mm."""

    def __init__(
        self, rng: np.random.Generator, decorrelation: float, wall_blur: float = 0.0, anisotropy: float = 0.0
    ) -> None:
        self.rng = rng
        self.decorrelation = decorrelation
        self.wall_blur = wall_blur
        self.anisotropy = anisotropy
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
        """Add scatterers one by one.

        Args:
            end_diastole: `(scatterers, 2)` array of x, y in mm.
            displacement: `(scatterers, 2)`, movement by a full contraction in mm.
            level: Level in dB, for all or for each.
            leaflet: Number of the first leaflet mode (2 mitral, 4 tricuspid), and the swing along the annulus and
                towards the apex, each `(scatterers, 2)` in mm.
            drift_weight: Share of the drift of the heart that the scatterers follow.
        """
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
            (1 - across)[:, None] * interpolate(getattr(inner, phase), along)
            + across[:, None] * interpolate(getattr(outer, phase), along)
            for phase in ("end_diastole", "end_systole")
        )
        # long thin layers along the wall, and patches through all of it
        layers = smooth_noise(self.rng, (len(inner.end_diastole) // 9 + 3, 6), sigma=0.5)
        patches = smooth_noise(self.rng, (len(inner.end_diastole) // 5 + 3, 1))
        patch = map_coordinates(layers, [along / 9, across * 5], order=1)
        patch = (patch + 1.4 * map_coordinates(patches[:, 0], [along / 5], order=1)) / 1.7
        profile = edge_gain * np.exp(-np.minimum(across, 1 - across) / 0.12)
        displacement = end - start
        if self.wall_blur:
            start = start + self.rng.normal(0, self.wall_blur, start.shape)
        facing = self.anisotropy * _facing_the_beam(inner.end_diastole)
        self.add(start, displacement, interpolate(level + facing, along) + patchiness * patch + profile)

    def add_blob(self, outline: Outline, index: int, radius: float, count: int, level: float) -> None:
        """Add a round patch that moves with one point of an outline."""
        offset = self.rng.normal(0, radius / 1.5, (count, 2))
        centre, displacement = outline.end_diastole[index], outline.displacement[index]
        self.add(centre + offset, np.broadcast_to(displacement, (count, 2)), level)

    def build(self, long_axis: np.ndarray) -> Scatterers:
        """Make arrays of all groups; `long_axis` is apex and annulus of the left ventricle, `(2, 2)` in mm."""
        amplitude = np.concatenate(self.amplitude).astype(np.float32)
        modes = np.concatenate(self.modes, axis=1)
        share = lead_share(modes[:, :, 0].T, long_axis)
        return Scatterers(
            modes=modes.astype(np.float32),
            lead=(share * modes[:, :, 1]).astype(np.float32),
            drift_weight=np.concatenate(self.drift_weight).astype(np.float32),
            amplitude=amplitude,
            phase=self.rng.uniform(0, 2 * np.pi, len(amplitude)).astype(np.float32),
            phase_drift=(self.decorrelation * self.rng.standard_normal(len(amplitude))).astype(np.float32),
        )


def lead_share(points: np.ndarray, long_axis: np.ndarray) -> np.ndarray:
    """Share of its displacement by which a point is ahead at a lead of 1: 1 far in the septum, -1 at the other side.

    Args:
        points: Points at end diastole, `(points, 2)` in mm.
        long_axis: Apex and annulus of the left ventricle, `(2, 2)` in mm.
    """
    along = (long_axis[1] - long_axis[0]) / np.linalg.norm(long_axis[1] - long_axis[0])
    lateral = (points[:, 0] - long_axis[0, 0]) * along[1] - (points[:, 1] - long_axis[0, 1]) * along[0]
    return -np.tanh(lateral / _SIDE_WIDTH)


def interpolate(values: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis at fractional indices `(K,)`."""
    index = np.minimum(position.astype(np.intp), len(values) - 2)
    fraction = position - index
    if values.ndim == 2:
        fraction = fraction[:, None]
    return (1 - fraction) * values[index] + fraction * values[index + 1]


def _facing_the_beam(curve: np.ndarray) -> np.ndarray:
    """Direction of a curve relative to the beam: 0.5 across, -0.5 along it, `(points,)`."""
    tangent = np.gradient(curve, axis=0)
    beam = curve / np.maximum(np.linalg.norm(curve, axis=1, keepdims=True), 1e-6)
    along = (tangent * beam).sum(axis=1) / np.maximum(np.linalg.norm(tangent, axis=1), 1e-6)
    return 0.5 - along**2


def _segment_areas(inner: Outline, outer: Outline) -> np.ndarray:
    """Area of each quadrilateral between two outlines at end diastole in mm^2."""
    a, b = inner.end_diastole, outer.end_diastole
    diagonal_1, diagonal_2 = b[1:] - a[:-1], a[1:] - b[:-1]
    return np.abs(diagonal_1[:, 0] * diagonal_2[:, 1] - diagonal_1[:, 1] * diagonal_2[:, 0]) / 2


def _relative_area(inner: Outline, outer: Outline, along: np.ndarray) -> np.ndarray:
    areas = _segment_areas(inner, outer)
    return areas[np.minimum(along.astype(np.intp), len(areas) - 1)] / areas.max()


def ribbon_count(inner: Outline, outer: Outline, density: float) -> int:
    """Number of scatterers for a band with this density per mm^2 in its widest part; `add_ribbon` thins the rest."""
    areas = _segment_areas(inner, outer)
    return int(density * areas.max() * len(areas))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float = 0.7) -> np.ndarray:
    """Smooth random field with mean 0 and standard deviation 1; `sigma` is in cells."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()
