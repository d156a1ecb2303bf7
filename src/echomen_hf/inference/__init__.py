"""Ejection fractions from files."""

from .predictor import Predictor, find_videos


__all__ = ["Predictor", "find_videos"]
