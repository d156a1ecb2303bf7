"""Simulated apical four-chamber echocardiograms with an exactly known ejection fraction."""

from __future__ import annotations

from .anatomy import AnatomyParameters, FourChamberHeart, disk_volume, ejection_fraction
from .dataset_writer import SyntheticEchoNetSettings, write_avi, write_synthetic_echonet
from .display import DisplayParameters
from .echo import EchoParameters, SimulatedEcho, sample_echo_parameters, simulate_echo
from .ejection_fraction_distribution import ejection_fraction_at
from .exports import Export, ExportSettings, export_clip, sample_export_settings
from .image_formation import ImagingParameters
from .motion import MotionParameters
from .parameters import sample_parameters
from .profiles import PROFILES, SimulationProfile, get_profile
from .simulated_videos import SimulatedFrames, SimulatedMasks, SimulatedTrainingClips, SimulatedVideos
from .stream import SimulatedEchoStream
from .tissue import TissueParameters


__all__ = [
    "PROFILES",
    "AnatomyParameters",
    "DisplayParameters",
    "EchoParameters",
    "Export",
    "ExportSettings",
    "FourChamberHeart",
    "ImagingParameters",
    "MotionParameters",
    "SimulatedEcho",
    "SimulatedEchoStream",
    "SimulatedFrames",
    "SimulatedMasks",
    "SimulatedTrainingClips",
    "SimulatedVideos",
    "SimulationProfile",
    "SyntheticEchoNetSettings",
    "TissueParameters",
    "disk_volume",
    "ejection_fraction",
    "ejection_fraction_at",
    "export_clip",
    "get_profile",
    "sample_echo_parameters",
    "sample_export_settings",
    "sample_parameters",
    "simulate_echo",
    "write_avi",
    "write_synthetic_echonet",
]
