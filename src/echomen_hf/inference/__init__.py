"""Ejection fractions from files."""

from .checkpoint import load_checkpoint
from .engines.engine import ENGINE_NAMES, PRECISIONS, Engine
from .engines.factory import make_engine
from .predictor import Predictor, find_videos
from .video_prediction import VideoPrediction, predict_split, predict_video
from .windows import SharedWindows


__all__ = [
    "ENGINE_NAMES",
    "PRECISIONS",
    "Engine",
    "Predictor",
    "SharedWindows",
    "VideoPrediction",
    "find_videos",
    "load_checkpoint",
    "make_engine",
    "predict_split",
    "predict_video",
]
