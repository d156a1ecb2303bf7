"""Ultrasound image formation: from point scatterers to a scan-converted, log-compressed sector image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, zoom
from scipy.sparse import csc_array, csr_array

from .parameters import fixed_parameter, parameter


__all__ = ["ImagingParameters", "SectorGeometry", "SectorScanner"]

_REFERENCE_SIZE = 112  # image size in pixels at which the pixel-valued ranges hold
_CHUNK_FRAMES = 16
_POWER_FLOOR = 1e-5
_LOG_POWER_RANGE = (math.log(_POWER_FLOOR), math.log(1e4))
_HEADROOM = 1.0  # dB between the brightest percent of the sector and white at a gain of 0
_GREY_MAP_SIZE = 4096
_GAMMA_LIMITS = (0.8, 3.5)
_SHOULDER = 0.07  # softness of the white level of the grey map


@dataclasses.dataclass(frozen=True)
class ImagingParameters:
    """Transducer, machine and operator of one clip; each field's metadata holds its range and unit."""

    sector_half_angle: float = parameter(40.0, 48.0, "degree", "half the opening angle of the sector")
    apex_row: float = parameter(-3.0, 7.0, "pixel", "row of the transducer in an image of 112 pixels")
    bottom_row: float = parameter(106.0, 116.0, "pixel", "lowest row of the sector in an image of 112 pixels")
    apex_column: float = parameter(53.5, 57.5, "pixel", "column of the transducer in an image of 112 pixels")
    lateral_resolution: float = parameter(0.011, 0.0165, "", "standard deviation of the beam in units of sin(angle)")
    axial_resolution: float = parameter(
        0.5, 0.75, "pixel", "standard deviation of the pulse in an image of 112 pixels"
    )
    side_lobe_level: float = parameter(-34.0, -24.0, "dB", "broad pedestal of the beam")
    carrier: float = parameter(1.4, 2.6, "rad/mm", "echo phase per mm of depth after speckle reduction")
    dynamic_range: float = parameter(32.0, 41.0, "dB", "range of echo power shown between black and white")
    gain: float = parameter(-3.0, 1.5, "dB", "overall gain, 0 = the brightest percent of the sector is nearly white")
    gamma: float = parameter(1.65, 2.05, "", "exponent of the grey map")
    compounding: float = parameter(0.25, 0.6, "", "0 = fully developed speckle, 1 = none")
    edge_enhancement: float = parameter(0.05, 0.35, "", "weight of the edge enhancement along the beam")
    toe: float = parameter(0.035, 0.06, "", "softness of the black level of the grey map")
    attenuation: float = parameter(0.0, 0.06, "dB/mm", "attenuation left after time-gain compensation")
    shading: float = parameter(1.0, 5.0, "dB", "standard deviation of the gain from beam to beam")
    streaks: float = parameter(0.5, 2.0, "dB", "standard deviation of the fine gain differences between beams")
    lateral_dropout: float = parameter(0.0, 8.0, "dB", "loss of the beams towards the lateral wall")
    near_field_clutter: float = parameter(-12.0, 0.0, "dB", "reverberation under the transducer")
    haze: float = parameter(-36.0, -24.0, "dB", "stationary clutter over the whole sector")
    noise: float = parameter(-29.0, -21.0, "dB", "electronic noise at the bottom of the sector")
    marks: float = parameter(
        0.0, 4.0, "", "number of small marks of the user interface outside the sector, rounded down"
    )
    persistence: float = parameter(0.1, 0.35, "", "weight of the previous frame in the shown frame")
    median_level: float = fixed_parameter(
        0.0, "grey level", "median of the sector that the operator aims at with the grey map; 0 = as `gamma` says"
    )
    defocus: float = fixed_parameter(0.0, "", "widening of the beam far from its focus, over its width at the focus")
    focus: float = fixed_parameter(0.5, "", "depth of the focus over the depth of the sector")
    gain_error: float = fixed_parameter(0.0, "dB", "standard deviation of the time-gain compensation's error")
    num_shadows: float = fixed_parameter(0.0, "", "number of acoustic shadows of ribs and lung, rounded down")
    shadow_loss: float = fixed_parameter(20.0, "dB", "loss in an acoustic shadow")
    clutter_reach: float = fixed_parameter(9.0, "mm", "depth at which the near-field clutter has fallen to a third")
    probe_radius: float = fixed_parameter(0.0, "mm", "depth that is cut off at the tip of the sector")


class SectorGeometry:
    """Position of the sector in the image; `depth` is in mm."""

    def __init__(self, parameters: ImagingParameters, image_size: int, depth: float) -> None:
        scale = image_size / _REFERENCE_SIZE
        self.image_size = image_size
        self.depth = depth
        self.half_angle = math.radians(parameters.sector_half_angle)
        self.apex = np.array([parameters.apex_column * scale, parameters.apex_row * scale])
        radius = (parameters.bottom_row - parameters.apex_row) * scale
        self.mm_per_pixel = depth / radius

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Map world coordinates (`(..., 2)` in mm) to image coordinates (column, row in pixels)."""
        return np.asarray(points) / self.mm_per_pixel + self.apex

    def polar_of_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Depth in mm and sine of the beam angle at each pixel centre, two `(size, size)` arrays."""
        grid = np.arange(self.image_size, dtype=np.float64)
        x, y = np.meshgrid(grid - self.apex[0], grid - self.apex[1])
        radius = np.maximum(np.hypot(x, y), 1e-6)
        sine = np.where(y > 0, x / radius, np.copysign(2.0, x))
        return radius * self.mm_per_pixel, sine


class SectorScanner:
    """A phased-array scanner that turns moving scatterers into frames.

    Echoes are laid on a grid of depth and sine of the beam angle, in which the beam of a phased array has a constant
    width (so it widens with depth in the image), spread by a separable point-spread function, detected, log-compressed
    and scan-converted.
    """

    def __init__(self, parameters: ImagingParameters, geometry: SectorGeometry, rng: np.random.Generator) -> None:
        self.parameters = parameters
        self.geometry = geometry
        scale = geometry.image_size / _REFERENCE_SIZE
        self.num_depths = max(int(128 * scale), 48)
        self.num_beams = max(int(88 * scale), 40)
        self.max_sine = math.sin(geometry.half_angle)
        self._point_spread()
        self._conversion_table()
        self._gain_map(rng)
        self._clutter_and_noise(rng)
        self._draw_marks(rng)

    def _point_spread(self) -> None:
        p, geometry = self.parameters, self.geometry
        scale = geometry.image_size / _REFERENCE_SIZE
        # the grid has one cell of margin on every side, which the point-spread matrices drop
        beam_sigma = p.lateral_resolution / (2 * self.max_sine) * (self.num_beams - 1)
        lateral = self._lateral_spread(p, beam_sigma)
        pixels_per_depth = geometry.depth / geometry.mm_per_pixel / (self.num_depths - 1)
        depth_sigma = p.axial_resolution * scale / pixels_per_depth
        distance = np.arange(self.num_depths)[:, None] + 1 - np.arange(self.num_depths + 2)[None, :]
        axial = np.exp(-0.5 * (distance / depth_sigma) ** 2)
        axial[:, [0, -1]] = 0
        axial /= np.sqrt((axial**2).sum(axis=1).max())
        # subnormal numbers in the tails would make the products many times slower
        axial[axial < 1e-6] = 0
        self._lateral = lateral  # (beams + 2, beams)
        self._far_lateral: np.ndarray | None = None
        if p.defocus:
            self._far_lateral = self._lateral_spread(p, beam_sigma * (1 + p.defocus))
            depth_share = np.linspace(0, 1, self.num_depths)[:, None]
            near = np.clip(1 - np.abs(depth_share - p.focus) / 0.6, 0, 1)
            self._in_focus = near.astype(np.float32)  # (depths, 1)
        self._axial = axial.astype(np.float32)  # (depths, depths + 2)
        self._cell_size = (geometry.depth / (self.num_depths - 1), 2 * self.max_sine / (self.num_beams - 1))

    def _lateral_spread(self, p: ImagingParameters, beam_sigma: float) -> np.ndarray:
        """Spread of an echo over the beams, `(beams + 2, beams)`, for a beam of this width in beams."""
        distance = np.arange(self.num_beams)[None, :] + 1 - np.arange(self.num_beams + 2)[:, None]
        pedestal = 10 ** (p.side_lobe_level / 20)
        lateral = np.exp(-0.5 * (distance / beam_sigma) ** 2) + pedestal * np.exp(
            -0.5 * (distance / (4 * beam_sigma)) ** 2
        )
        lateral[[0, -1]] = 0
        lateral[lateral < 1e-6] = 0
        return lateral.astype(np.float32)

    def _conversion_table(self) -> None:
        """Bilinear interpolation from the polar grid to the pixels, as one sparse matrix."""
        depth, sine = self.geometry.polar_of_pixels()
        row = depth / self._cell_size[0]
        column = (sine + self.max_sine) / self._cell_size[1]
        inside = (row <= self.num_depths - 1) & (column >= 0) & (column <= self.num_beams - 1)
        inside &= depth >= self.parameters.probe_radius
        self.sector_mask = inside
        row, column = row[inside], column[inside]
        r0 = np.minimum(row.astype(int), self.num_depths - 2)
        c0 = np.minimum(column.astype(int), self.num_beams - 2)
        fr, fc = row - r0, column - c0
        # along the beam, interpolation and edge enhancement (-e, 1 + 2e, -e) are one kernel over four depths
        e = self.parameters.edge_enhancement
        along = [-e * (1 - fr), (1 + 2 * e) * (1 - fr) - e * fr, (1 + 2 * e) * fr - e * (1 - fr), -e * fr]
        depths = [np.clip(r0 + offset, 0, self.num_depths - 1) for offset in (-1, 0, 1, 2)]
        weights = np.concatenate([w * share for w in along for share in (1 - fc, fc)])
        cells = np.concatenate([depth * self.num_beams + c0 + offset for depth in depths for offset in (0, 1)])
        shape = (len(row), self.num_depths * self.num_beams)
        pixels = np.tile(np.arange(len(row)), len(along) * 2)
        self._conversion = csr_array((weights.astype(np.float32), (pixels, cells)), shape=shape)
        self._lit_pixels = np.flatnonzero(inside.ravel())

    def _gain_map(self, rng: np.random.Generator) -> None:
        p = self.parameters
        depth = np.linspace(0, self.geometry.depth, self.num_depths)[:, None]
        angle = np.linspace(-1, 1, self.num_beams)[None, :]
        shading = gaussian_filter(rng.standard_normal((3, self.num_beams)), (0.6, self.num_beams / 22), mode="nearest")
        shading = zoom(shading / shading.std(), (self.num_depths / 3, 1), order=1)
        streaks = gaussian_filter(rng.standard_normal((1, self.num_beams)), (0, self.num_beams / 75))
        shading = p.shading * shading + p.streaks * streaks / streaks.std()
        lateral = 1 / (1 + np.exp(-(angle - rng.uniform(0.35, 0.75)) / 0.1))
        medial = 1 / (1 + np.exp((angle + rng.uniform(0.7, 1.0)) / 0.1))
        edge = np.exp(-(1 - np.abs(angle)) / 0.03)
        decibel = shading - p.lateral_dropout * (lateral + 0.6 * medial) - 3 * edge
        decibel = decibel - p.attenuation * depth
        if p.gain_error:
            error = gaussian_filter(rng.standard_normal((self.num_depths, 1)), (self.num_depths / 12, 0))
            decibel = decibel + p.gain_error * error / error.std()
        for _ in range(int(p.num_shadows)):
            decibel = decibel - self._shadow(depth, angle, rng)
        self._gain = (10 ** (decibel / 20)).astype(np.float32)

    def _shadow(self, depth: np.ndarray, angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Loss in dB behind a rib or the lung: a narrow one anywhere or a wide one at the side of the sector."""
        if rng.random() < 0.5:
            centre, half_width = rng.uniform(-1, 1), rng.uniform(0.02, 0.1)
        else:
            centre, half_width = rng.choice([-1.0, 1.0]), rng.uniform(0.1, 0.55)
        across = 1 / (1 + np.exp((np.abs(angle - centre) - half_width) / rng.uniform(0.015, 0.06)))
        start = rng.uniform(0, 0.35) * self.geometry.depth
        behind = 1 / (1 + np.exp((start - depth) / rng.uniform(2, 8)))
        return rng.uniform(0.3, 1) * self.parameters.shadow_loss * across * behind

    def _grey_map(self, log_power: np.ndarray) -> np.ndarray:
        """Grey levels over `_LOG_POWER_RANGE` with soft black and white levels, `(_GREY_MAP_SIZE,)`.

        As the operator does, the gain is set by the picture: the brightest percent of the first frame is nearly white.
        """
        p = self.parameters
        middle, bright = np.percentile(self._conversion @ log_power.ravel(), (50, 99))
        axis = np.linspace(*_LOG_POWER_RANGE, _GREY_MAP_SIZE, endpoint=False)
        shown = 1 + (10 / math.log(10) * (axis - bright) + p.gain - _HEADROOM) / p.dynamic_range
        shown = p.toe * np.logaddexp(0, shown / p.toe)
        shown = 1 - _SHOULDER * np.logaddexp(0, (1 - shown) / _SHOULDER)
        gamma = p.gamma
        if p.median_level:
            # the exponent that shows the median of the sector at the level aimed at, within what machines offer
            share = np.clip(np.interp(middle, axis, shown), 1e-3, 1 - 1e-3)
            gamma = float(np.clip(math.log(p.median_level / 255) / math.log(share), *_GAMMA_LIMITS))
        return (255 * np.maximum(shown, 0) ** gamma).astype(np.float32)

    def _clutter_and_noise(self, rng: np.random.Generator) -> None:
        p = self.parameters
        shape = (self.num_depths, self.num_beams)
        depth = np.linspace(0, self.geometry.depth, self.num_depths)[:, None]

        def complex_noise(count: int) -> np.ndarray:
            return (rng.standard_normal((2, count, *shape)) / math.sqrt(2)).astype(np.float32)

        texture = gaussian_filter(complex_noise(1)[:, 0], (0, 1.2, 2.5))
        texture /= texture.std() * math.sqrt(2)
        clouds = gaussian_filter(rng.standard_normal(shape), (self.num_depths / 10, self.num_beams / 8))
        haze = 10 ** ((p.haze + 6 * clouds / clouds.std()) / 20)
        layers = 1 + 0.6 * np.sin(depth * rng.uniform(0.5, 1.0))
        near = 10 ** (p.near_field_clutter / 20) * np.exp(-depth / p.clutter_reach) * layers
        self._clutter = (texture * (haze + near)).astype(np.float32)  # (2, depths, beams)
        # noise grows with depth because the time-gain compensation amplifies it
        profile = 10 ** ((p.noise - 12 * (1 - depth / self.geometry.depth)) / 20)
        self._noise = complex_noise(6) * profile.astype(np.float32)
        self._noise_order = rng.integers(0, 6, 997)

    def _draw_marks(self, rng: np.random.Generator) -> None:
        """Depth ticks and the like outside the sector, which masking left over."""
        size = self.geometry.image_size
        self._marks = np.zeros((size, size), dtype=np.uint8)
        for _ in range(int(self.parameters.marks)):
            row, column = rng.integers(0, size - 3, 2)
            height, width = rng.integers(1, 3), rng.integers(1, 4)
            self._marks[row : row + height, column : column + width] = rng.integers(40, 200)
        self._marks[binary_dilation(self.sector_mask, iterations=2)] = 0

    def scan(
        self,
        echoes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
        amplitude: np.ndarray,
        frames: np.ndarray,
    ) -> np.ndarray:
        """Image the scatterers in the frames with these ascending numbers, uint8 `(K, size, size)`.

        Frames in between are not made: what the persistence would take from them comes from the last frame before the
        gap.

        Args:
            echoes: Function that gives lateral position in mm, depth in mm and phase in radians for a slice of frames,
                each a `(frames, scatterers)` float32 array.
            amplitude: `(scatterers,)` echo amplitude.
            frames: `(K,)` ascending frame numbers.
        """
        size = self.geometry.image_size
        images = np.tile(self._marks.ravel(), (len(frames), 1))  # (frames, pixels)
        gaps = np.diff(frames, prepend=frames[:1])
        previous: np.ndarray | None = None
        grey_map: np.ndarray | None = None
        for start in range(0, len(frames), _CHUNK_FRAMES):
            chunk = slice(start, start + _CHUNK_FRAMES)
            grid = self._lay_on_grid(*echoes(frames[chunk]), amplitude)
            log_power = self._detect(grid, frames[chunk])
            if grey_map is None:
                grey_map = self._grey_map(log_power[0])
            scale = (_GREY_MAP_SIZE - 1) / (_LOG_POWER_RANGE[1] - _LOG_POWER_RANGE[0])
            entry = np.clip((log_power - _LOG_POWER_RANGE[0]) * np.float32(scale), 0, _GREY_MAP_SIZE - 1)
            brightness = grey_map.take(entry.astype(np.int32))
            previous = self._persist(brightness, previous, gaps[chunk])
            grey = self._conversion @ brightness.reshape(len(brightness), -1).T  # (pixels, frames)
            np.clip(grey, 0, 255, out=grey)
            images[chunk, self._lit_pixels] = np.rint(grey.T).astype(np.uint8)
        return images.reshape(len(frames), size, size)

    def _lay_on_grid(self, x: np.ndarray, z: np.ndarray, phase: np.ndarray, amplitude: np.ndarray) -> np.ndarray:
        """Spread each echo over the four neighbouring grid cells, `(3, frames, depths + 2, beams + 2)`.

        The first two maps are the real and imaginary part of the echo, the third is its energy.
        """
        num_frames, num_scatterers = x.shape
        rows, columns = self.num_depths + 2, self.num_beams + 2
        radius = np.sqrt(x * x + z * z) + np.float32(1e-3)
        row = radius * np.float32(1 / self._cell_size[0]) + 1
        column = (x / radius + np.float32(self.max_sine)) * np.float32(1 / self._cell_size[1]) + 1
        np.clip(row, 0, np.float32(rows - 1.01), out=row)
        np.clip(column, 0, np.float32(columns - 1.01), out=column)
        first_row, first_column = row.astype(np.int32), column.astype(np.int32)
        row -= first_row
        column -= first_column

        # one sparse matrix with four weights per scatterer spreads all three maps at once
        weights = np.empty((num_frames, num_scatterers, 4), dtype=np.float32)
        np.multiply(row, column, out=weights[..., 3])
        np.subtract(row, weights[..., 3], out=weights[..., 2])
        np.subtract(column, weights[..., 3], out=weights[..., 1])
        np.subtract(1 - row, weights[..., 1], out=weights[..., 0])
        cell = first_row * columns + first_column
        cell += (np.arange(num_frames, dtype=np.int32) * (rows * columns))[:, None]
        cells = np.empty((num_frames, num_scatterers, 4), dtype=np.int32)
        for corner, offset in enumerate((0, 1, columns, columns + 1)):
            np.add(cell, offset, out=cells[..., corner])
        starts = np.arange(0, weights.size + 1, 4, dtype=np.int32)
        spread = csc_array(
            (weights.ravel(), cells.ravel(), starts), shape=(num_frames * rows * columns, num_frames * num_scatterers)
        )

        angle = phase + np.float32(self.parameters.carrier) * radius
        echo = np.empty((num_frames, num_scatterers, 3), dtype=np.float32)
        np.multiply(amplitude, np.cos(angle), out=echo[..., 0])
        np.multiply(amplitude, np.sin(angle), out=echo[..., 1])
        echo[..., 2] = np.square(amplitude)
        grid = spread @ echo.reshape(-1, 3)  # (frames * rows * columns, 3)
        return np.ascontiguousarray(grid.T).reshape(3, num_frames, rows, columns)

    def _detect(self, echoes: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """From echo maps to log power `(frames, depths, beams)`: beam, gain, clutter, noise, detection."""
        p = self.parameters
        along = np.matmul(self._axial, echoes[:2])  # (2, frames, depths, beams + 2)
        signal = along @ self._lateral  # (2, frames, depths, beams)
        if self._far_lateral is not None:
            signal *= self._in_focus
            signal += (1 - self._in_focus) * (along @ self._far_lateral)
        mean_power = np.matmul(self._axial**2, echoes[2]) @ self._lateral**2  # (frames, depths, beams)
        signal *= self._gain
        signal += self._clutter[:, None]
        signal += self._noise[:, self._noise_order[frames % len(self._noise_order)]]
        power = np.square(signal[0]) + np.square(signal[1])
        # compounding averages independent looks at the same tissue: the limit of many is the mean power
        power += p.compounding * (np.square(self._gain) * mean_power - power)
        return np.log(power + np.float32(_POWER_FLOOR))

    def _persist(self, brightness: np.ndarray, previous: np.ndarray | None, gaps: np.ndarray) -> np.ndarray:
        """Mix each frame with the one shown `gaps` frames before it, in place; returns the last shown frame."""
        weights = (self.parameters.persistence ** np.maximum(gaps, 1)).astype(np.float32)
        for frame, weight in zip(brightness, weights, strict=True):
            if previous is not None:
                frame *= 1 - weight
                frame += weight * previous
            previous = frame
        return brightness[-1].copy()
