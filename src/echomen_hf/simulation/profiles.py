"""Named sets of parameter ranges for simulated patients and machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from .display import Codec
from .motion import Rhythm
from .parameters import Ranges


__all__ = ["PROFILES", "SimulationProfile", "get_profile"]


@dataclasses.dataclass(frozen=True)
class SimulationProfile:
    """Ranges that replace those of the parameter dataclasses, and how often things occur.

    Args:
        name: Name.
        anatomy: Ranges of `AnatomyParameters`.
        motion: Ranges of `MotionParameters`.
        tissue: Ranges of `TissueParameters`.
        imaging: Ranges of `ImagingParameters`.
        display: Ranges of `DisplayParameters`. If empty, frames are left as the scanner made them.
        weak_segment_share: Share of hearts with a regional wall-motion defect.
        rhythm_shares: Share of each rhythm.
        codec_shares: Share of each compression.
    """

    name: str
    anatomy: Ranges = dataclasses.field(default_factory=dict)
    motion: Ranges = dataclasses.field(default_factory=dict)
    tissue: Ranges = dataclasses.field(default_factory=dict)
    imaging: Ranges = dataclasses.field(default_factory=dict)
    display: Ranges = dataclasses.field(default_factory=dict)
    weak_segment_share: float = 0.3
    rhythm_shares: Mapping[Rhythm, float] = dataclasses.field(
        default_factory=lambda: {"sinus": 0.75, "atrial_fibrillation": 0.13, "premature_beats": 0.12}
    )
    codec_shares: Mapping[Codec, float] = dataclasses.field(default_factory=lambda: {"none": 1.0})


_WIDE = SimulationProfile(
    name="wide",
    anatomy={
        "end_diastolic_volume": (42.0, 86.0, 240.0),
        "elongation": (1.2, 2.1),
        "widest_level": (0.42, 0.72),
        "annulus_ratio": (0.55, 0.92),
        "apex_exponent": (1.6, 2.9),
        "septal_share": (0.42, 0.56),
        "bend": (-0.1, 0.1),
        "septal_thickness": (5.0, 8.5, 15.0),
        "lateral_thickness": (5.0, 8.5, 14.0),
        "apical_thinning": (0.4, 1.0),
        "longitudinal_share": (0.06, 0.36),
        "base_to_apex_gradient": (-0.5, 0.5),
        "septal_excursion": (0.5, 1.2),
        "hypokinesia": (0.1, 0.9),
        "hypokinesia_width": (0.2, 0.55),
        "apex_descent": (-3.0, 5.0),
        "rocking": (-7.0, 7.0),
        "systolic_shift": (-4.0, 4.0),
        "rv_width": (18.0, 48.0),
        "rv_apex_level": (0.05, 0.55),
        "rv_bulge": (0.1, 0.7),
        "tapse": (6.0, 28.0),
        "rv_inward_motion": (0.0, 9.0),
        "la_depth": (25.0, 65.0),
        "la_width_ratio": (0.9, 1.6),
        "ra_depth": (25.0, 60.0),
        "ra_width_ratio": (0.9, 1.6),
        "tilt": (-20.0, -7.0, 6.0),
        "apex_depth": (18.0, 31.0, 45.0),
        "apex_offset": (-6.0, 4.0, 12.0),
        "depth_below_annulus": (0.45, 0.95, 1.45),
    },
    motion={
        "heart_rate": (40.0, 72.0, 140.0),
        "systolic_interval": (0.27, 0.40),
        "early_filling_time": (0.11, 0.30),
        "early_filling_share": (0.35, 0.92),
        "beat_variation": (0.005, 0.07),
        "breathing_amplitude": (0.0, 6.0, 14.0),
        "breathing_rate": (8.0, 26.0),
        "systolic_skew": (-0.5, 0.5),
        "leaflet_swing": (0.35, 1.15),
        "dyssynchrony": (-0.7, 0.7),
        "probe_sway": (1.0, 8.0),
    },
    tissue={
        "density": (0.45, 0.85),
        "septum_level": (-12.0, -2.0, 5.0),
        "lateral_wall_level": (-28.0, 1.0),
        "apex_level": (-16.0, 3.0),
        "right_ventricle_level": (-28.0, 0.0),
        "atrial_wall_level": (-28.0, -2.0),
        "valve_level": (-26.0, -5.0),
        "annulus_level": (-10.0, 6.0),
        "pericardium_level": (-14.0, 8.0),
        "blood_level": (-56.0, -34.0),
        "surroundings_level": (-24.0, -5.0),
        "surroundings_variation": (4.0, 11.0),
        "papillary_level": (-34.0, -6.0),
        "second_papillary_level": (-60.0, -10.0),
        "papillary_radius": (2.0, 5.5),
        "papillary_position": (0.25, 0.7),
        "trabeculation_level": (-30.0, -9.0),
        "num_trabeculae": (0.0, 10.0),
        "moderator_band_level": (-70.0, -8.0),
        "decorrelation": (4.0, 11.0),
        "patchiness": (5.0, 13.0),
        "wall_edge_gain": (-1.0, 6.0),
        "anisotropy": (0.0, 8.0),
        "wall_blur": (0.0, 1.8),
    },
    imaging={
        "sector_half_angle": (38.0, 48.0),
        "apex_row": (-9.0, 1.0, 12.0),
        "bottom_row": (99.0, 110.0, 122.0),
        "apex_column": (50.0, 56.0, 61.0),
        "lateral_resolution": (0.006, 0.0145),
        "axial_resolution": (0.4, 0.95),
        "side_lobe_level": (-42.0, -24.0),
        "carrier": (1.0, 3.2),
        "dynamic_range": (28.0, 46.0),
        "gain": (-3.0, 2.0),
        "compounding": (0.05, 0.5),
        "edge_enhancement": (0.0, 0.4),
        "toe": (0.006, 0.035),
        "attenuation": (-0.03, 0.09),
        "shading": (1.0, 8.0),
        "streaks": (0.3, 3.6),
        "lateral_dropout": (0.0, 5.0, 20.0),
        "near_field_clutter": (-22.0, -2.0),
        "clutter_reach": (4.0, 14.0),
        "haze": (-48.0, -34.0, -20.0),
        "noise": (-42.0, -22.0),
        "marks": (0.0, 7.0),
        "persistence": (0.0, 0.45),
        "median_level": (7.0, 21.0, 46.0),
        "defocus": (0.0, 0.7),
        "focus": (0.25, 0.9),
        "gain_error": (0.0, 4.0),
        "num_shadows": (0.0, 3.9),
        "shadow_loss": (5.0, 40.0),
        "probe_radius": (-6.0, 8.0),
    },
    display={
        "blur": (0.0, 0.4),
        "sharpening": (-0.1, 0.9),
        "resampled_size": (92.0, 150.0),
        "quality": (40.0, 95.0),
        "acquired_share": (0.75, 2.6),
        "contour_mask": (0.0, 1.0),
        "ecg": (0.0, 0.58),
        "ticks": (0.0, 0.65),
    },
    weak_segment_share=0.4,
    rhythm_shares={"sinus": 0.64, "atrial_fibrillation": 0.14, "premature_beats": 0.12, "pauses": 0.1},
    codec_shares={"none": 0.2, "jpeg": 0.6, "mpeg4": 0.2},
)

# Every range lies outside the one of the same name in the wide profile: a machine that training never shows.
_HELD_OUT_VENDOR = dataclasses.replace(
    _WIDE,
    name="held_out_vendor",
    imaging={
        **_WIDE.imaging,
        "sector_half_angle": (32.0, 37.0),
        "lateral_resolution": (0.0155, 0.02),
        "axial_resolution": (1.0, 1.3),
        "side_lobe_level": (-23.0, -18.0),
        "carrier": (3.4, 4.5),
        "compounding": (0.55, 0.75),
        "edge_enhancement": (0.45, 0.7),
        "toe": (0.045, 0.07),
        "dynamic_range": (48.0, 58.0),
        "streaks": (3.8, 5.5),
    },
    display={
        **_WIDE.display,
        "blur": (0.5, 0.8),
        "sharpening": (0.95, 1.4),
        "resampled_size": (70.0, 90.0),
        "quality": (20.0, 38.0),
    },
    codec_shares={"jpeg": 0.7, "mpeg4": 0.3},
)

PROFILES: Mapping[str, SimulationProfile] = MappingProxyType(
    {"reference": SimulationProfile(name="reference"), "wide": _WIDE, "held_out_vendor": _HELD_OUT_VENDOR}
)
"""`reference`: the clear pictures of the demo. `wide`: domain randomisation, for training a model that is to read real
videos. `held_out_vendor`: the patients of `wide` on machines with resolution, speckle, grey map, post-filters, sector
and compression that `wide` does not have, for testing."""


def get_profile(profile: str | SimulationProfile) -> SimulationProfile:
    """Find a profile by name, or raise a ValueError that lists them; a profile is returned as it is."""
    if isinstance(profile, SimulationProfile):
        return profile
    if profile not in PROFILES:
        raise ValueError(f"unknown simulation profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[profile]
