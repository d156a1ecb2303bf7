"""Ejection fractions from files."""

from .checkpoint import load_checkpoint
from .predictor import Predictor, find_videos


__all__ = ["Predictor", "find_videos", "load_checkpoint"]
