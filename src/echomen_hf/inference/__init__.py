"""Ejection fractions from files."""

from .archive import predict_archive
from .archive_files import list_files, read_manifest
from .checkpoint import load_checkpoint
from .engines.engine import ENGINE_NAMES, PRECISIONS, Engine
from .engines.factory import make_engine
from .groups import GroupPrediction, combine_videos, find_groups, video_variances, write_groups
from .predictor import Predictor, find_videos
from .vector_prediction import predict_vectors
from .video_prediction import VideoPrediction, predict_split, predict_video
from .windows import SharedWindows


__all__ = [
    "ENGINE_NAMES",
    "PRECISIONS",
    "Engine",
    "GroupPrediction",
    "Predictor",
    "SharedWindows",
    "VideoPrediction",
    "combine_videos",
    "find_groups",
    "find_videos",
    "list_files",
    "load_checkpoint",
    "make_engine",
    "predict_archive",
    "predict_split",
    "predict_vectors",
    "predict_video",
    "read_manifest",
    "video_variances",
    "write_groups",
]
