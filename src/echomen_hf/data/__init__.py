"""Echo data: files, data sets, clips."""

from .clip_dataset import EvaluationClips, TrainingClips
from .collation import collate_clips
from .device_clips import with_pixel_values
from .frame_cache import FrameCache
from .layouts.registry import read_data_set
from .loading import EchoNetFormatError, LayoutError, load_echonet_dynamic, load_rows, load_videos
from .pixel_statistics import pixel_statistics
from .provenance import is_synthetic
from .tracings import Tracing, polygon_mask, read_tracings
from .validation import VideoProblem, VideoValidationError, raise_for_problems, validate_videos


__all__ = [
    "EchoNetFormatError",
    "EvaluationClips",
    "FrameCache",
    "LayoutError",
    "Tracing",
    "TrainingClips",
    "VideoProblem",
    "VideoValidationError",
    "collate_clips",
    "is_synthetic",
    "load_echonet_dynamic",
    "load_rows",
    "load_videos",
    "pixel_statistics",
    "polygon_mask",
    "raise_for_problems",
    "read_data_set",
    "read_tracings",
    "validate_videos",
    "with_pixel_values",
]
