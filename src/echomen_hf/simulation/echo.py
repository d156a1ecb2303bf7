"""One simulated apical four-chamber clip."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from .anatomy import AnatomyParameters, FourChamberHeart, LeftVentricle, disk_volume
from .anatomy import ejection_fraction as ejection_fraction_of_volumes
from .display import Codec, DisplayParameters, acquired_frames, show_frames
from .ejection_fraction_distribution import ejection_fraction_at
from .image_formation import ImagingParameters, SectorGeometry, SectorScanner
from .motion import CardiacMotion, MotionParameters, Rhythm, simulate_cardiac_motion
from .parameters import sample_parameters
from .profiles import SimulationProfile, get_profile
from .scatterers import Scatterers, lead_share
from .tissue import TissueParameters, build_scatterers


__all__ = ["EchoParameters", "SimulatedEcho", "sample_echo_parameters", "simulate_echo"]

_COORDINATE_DECIMALS = 8


@dataclasses.dataclass(frozen=True)
class EchoParameters:
    """Everything that defines a clip except its random texture.

    Args:
        ejection_fraction: Target ejection fraction in percent.
        num_frames: Number of frames.
        fps: Frames per second.
        depth: Depth of the sector in mm.
        anatomy: Size, shape, contraction pattern and position of the heart.
        motion: Rhythm and timing.
        tissue: Brightness of the tissues.
        imaging: Transducer, machine and operator.
        display: What happens to the frames between the scanner and the file.
    """

    ejection_fraction: float
    num_frames: int
    fps: float
    depth: float
    anatomy: AnatomyParameters
    motion: MotionParameters
    tissue: TissueParameters
    imaging: ImagingParameters
    display: DisplayParameters = DisplayParameters()


@dataclasses.dataclass(frozen=True)
class SimulatedEcho:
    """A clip and its exact measurements.

    Args:
        frames: `(frames, height, width)` uint8 grayscale video; `(0, height, width)` if not rendered.
        fps: Frames per second.
        ejection_fraction: Ejection fraction in percent by the method of disks on `tracings`.
        edv: End-diastolic volume in mL.
        esv: End-systolic volume in mL.
        end_diastolic_frame: Frame of the end-diastolic tracing.
        end_systolic_frame: Frame of the end-systolic tracing.
        tracings: `(2, 21, 4)` X1, Y1, X2, Y2 in pixels, at end diastole and end systole: the long axis from apex to
            annulus, then 20 chords from apex to base, each from the septal to the lateral side.
        mm_per_pixel: Size of a pixel in mm.
        contraction: `(frames,)`, 0 at end diastole and 1 at end systole of the traced beat.
        outlines: `(K, points, 2)`, border of the left-ventricular cavity in each of `frames`, or in those that would
            have been rendered: column and row in pixels, from the septal hinge of the mitral valve over the apex to
            the lateral one. The line back to the first point is the plane of the annulus. Trabeculae and papillary
            muscles lie inside.
        parameters: Parameters of the clip.
    """

    frames: np.ndarray
    fps: float
    ejection_fraction: float
    edv: float
    esv: float
    end_diastolic_frame: int
    end_systolic_frame: int
    tracings: np.ndarray
    mm_per_pixel: float
    contraction: np.ndarray
    outlines: np.ndarray
    parameters: EchoParameters


def sample_echo_parameters(
    rng: np.random.Generator,
    ejection_fraction: float,
    num_frames: int,
    fps: float,
    profile: str | SimulationProfile = "reference",
    *,
    couple_size: float = 0.0,
) -> EchoParameters:
    """Draw a patient, a rhythm and a machine, none of which depends on the ejection fraction.

    Args:
        rng: Source of randomness.
        ejection_fraction: Target ejection fraction in percent.
        num_frames: Number of frames.
        fps: Frames per second.
        profile: Ranges of the parameters, by name or as an object.
        couple_size: How much larger weak hearts are: the end-diastolic volume is multiplied by `exp(couple_size * (60
            - EF) / 50)`. At 0 the size says nothing about the ejection fraction.

    Returns:
        The parameters of the clip.
    """
    profile = get_profile(profile)
    weak_segment = rng.random() < profile.weak_segment_share
    anatomy = sample_parameters(AnatomyParameters, rng, profile.anatomy)
    if not weak_segment:
        anatomy = dataclasses.replace(anatomy, hypokinesia=0.0)
    if couple_size:
        volume = anatomy.end_diastolic_volume * math.exp(couple_size * (60 - ejection_fraction) / 50)
        anatomy = dataclasses.replace(anatomy, end_diastolic_volume=volume)
    rhythms: tuple[Rhythm, ...] = tuple(profile.rhythm_shares)
    rhythm = rhythms[rng.choice(len(rhythms), p=list(profile.rhythm_shares.values()))]
    motion = sample_parameters(MotionParameters, rng, profile.motion, rhythm=rhythm)
    # the operator sets the depth so that the atria are just inside; the same choice for every ejection fraction
    length = LeftVentricle(anatomy, 50.0).length
    below = rng.triangular(0.7, 0.85, 1.5) * max(anatomy.la_depth, anatomy.ra_depth)
    tissue = sample_parameters(TissueParameters, rng, profile.tissue)
    imaging = sample_parameters(ImagingParameters, rng, profile.imaging)
    display = DisplayParameters()
    if profile.display:
        codecs: tuple[Codec, ...] = tuple(profile.codec_shares)
        codec = codecs[rng.choice(len(codecs), p=list(profile.codec_shares.values()))]
        display = sample_parameters(DisplayParameters, rng, profile.display, codec=codec)
    return EchoParameters(
        ejection_fraction=ejection_fraction,
        num_frames=num_frames,
        fps=fps,
        depth=anatomy.apex_depth + length + anatomy.depth_below_annulus * below,
        anatomy=anatomy,
        motion=_fit_to_clip(motion, num_frames, fps),
        tissue=tissue,
        imaging=imaging,
        display=display,
    )


def _fit_to_clip(motion: MotionParameters, num_frames: int, fps: float) -> MotionParameters:
    """Raise the heart rate if a short clip would not hold end diastole and end systole of one beat."""
    available = (num_frames - 3) / fps
    rate = motion.heart_rate
    while motion.systolic_interval * (60 / rate) ** 0.4 > available and rate < 200:
        rate *= 1.05
    return dataclasses.replace(motion, heart_rate=rate)


def simulate_echo(
    seed: int | np.random.Generator,
    ejection_fraction: float | None = None,
    *,
    num_frames: int = 128,
    fps: float = 50.0,
    image_size: int = 112,
    parameters: EchoParameters | None = None,
    render: bool = True,
    profile: str | SimulationProfile = "reference",
    couple_size: float = 0.0,
    frames: np.ndarray | None = None,
) -> SimulatedEcho:
    """Simulate an apical four-chamber clip with an exactly known ejection fraction.

    Args:
        seed: Seed or generator.
        ejection_fraction: Target in percent, within [1, 99]. Defaults to a draw from EchoNet-Dynamic's distribution.
        num_frames: Number of frames.
        fps: Frames per second.
        image_size: Height and width in pixels.
        parameters: Parameters of the clip, drawn by default. They replace `ejection_fraction`, `num_frames` and `fps`.
        render: Whether to make the frames; the measurements alone take a few milliseconds.
        profile: Ranges of the parameters, see `PROFILES`.
        couple_size: How much larger weak hearts are, see `sample_echo_parameters`.
        frames: Numbers of the frames to make, ascending, `(K,)`. Defaults to all frames.

    Returns:
        The clip with its measurements.

    Raises:
        ValueError: If the ejection fraction is out of range or the clip is too short to hold one systole.
    """
    rng = np.random.default_rng(seed)
    if parameters is None:
        if ejection_fraction is None:
            ejection_fraction = float(ejection_fraction_at(rng.random()))
        parameters = sample_echo_parameters(rng, ejection_fraction, num_frames, fps, profile, couple_size=couple_size)
    heart = FourChamberHeart(parameters.anatomy, parameters.ejection_fraction)
    motion = simulate_cardiac_motion(parameters.motion, parameters.num_frames, parameters.fps, rng)
    geometry = SectorGeometry(parameters.imaging, image_size, parameters.depth)
    tracings = _trace(heart, motion, geometry)
    edv, esv = (disk_volume(tracing, geometry.mm_per_pixel) for tracing in tracings)
    numbers = np.arange(parameters.num_frames) if frames is None else np.asarray(frames, dtype=np.int64)
    if render:
        with _threads().limit(limits=1):
            scatterers = build_scatterers(
                heart, parameters.tissue, rng, depth=geometry.depth, half_angle=geometry.half_angle
            )
            images = render_scatterers(scatterers, motion, geometry, parameters, numbers, rng)
    else:
        images = np.zeros((0, image_size, image_size), dtype=np.uint8)
    return SimulatedEcho(
        frames=images,
        fps=parameters.fps,
        ejection_fraction=ejection_fraction_of_volumes(edv, esv),
        edv=edv,
        esv=esv,
        end_diastolic_frame=motion.end_diastolic_frame,
        end_systolic_frame=motion.end_systolic_frame,
        tracings=tracings,
        mm_per_pixel=geometry.mm_per_pixel,
        contraction=motion.contraction,
        outlines=_outlines(heart, motion, geometry, acquired_frames(numbers, parameters.display.acquired_share)),
        parameters=parameters,
    )


@functools.cache
def _threads() -> Any:
    """Thread pools of the loaded libraries; finding them takes milliseconds."""
    return ThreadpoolController()


def _trace(heart: FourChamberHeart, motion: CardiacMotion, geometry: SectorGeometry) -> np.ndarray:
    tracings = []
    for systolic, frame in ((False, motion.end_diastolic_frame), (True, motion.end_systolic_frame)):
        points = heart.tracing(systolic=systolic).reshape(-1, 2) + motion.drift[frame]
        tracings.append(geometry.to_pixels(points).reshape(-1, 4))
    return np.round(np.stack(tracings), _COORDINATE_DECIMALS)


def _outlines(
    heart: FourChamberHeart, motion: CardiacMotion, geometry: SectorGeometry, frames: np.ndarray
) -> np.ndarray:
    """Border of the left-ventricular cavity in frames with these numbers, moved as the wall's scatterers are."""
    wall = heart.lv_endocardium
    share = lead_share(wall.end_diastole, heart.tracing(systolic=False)[0].reshape(2, 2))
    # (frames, points)
    contraction = motion.contraction[frames, None] + motion.lead[frames, None] * share
    points = wall.end_diastole + contraction[..., None] * wall.displacement + motion.drift[frames, None]
    return geometry.to_pixels(points)


def render_scatterers(
    scatterers: Scatterers,
    motion: CardiacMotion,
    geometry: SectorGeometry,
    parameters: EchoParameters,
    frames: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Image scatterers on the machine of these parameters, in the frames with these ascending numbers."""
    scanner = SectorScanner(parameters.imaging, geometry, rng)
    acquired, shown = np.unique(acquired_frames(frames, parameters.display.acquired_share), return_inverse=True)
    images = scanner.scan(lambda chunk: scatterers.echoes(motion, chunk), scatterers.amplitude, acquired)[shown]
    if parameters.display == DisplayParameters():
        return images
    return show_frames(
        images, parameters.display, frames=frames, motion=motion, sector_mask=scanner.sector_mask, rng=rng
    )
