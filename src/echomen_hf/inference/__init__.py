"""Ejection fractions from files."""

from .checkpoint import load_checkpoint
from .dense_windows import SharedWindows
from .engine import ENGINE_NAMES, PRECISIONS, Engine, make_engine
from .predictor import Predictor, find_videos


__all__ = [
    "ENGINE_NAMES",
    "PRECISIONS",
    "Engine",
    "Predictor",
    "SharedWindows",
    "find_videos",
    "load_checkpoint",
    "make_engine",
]
