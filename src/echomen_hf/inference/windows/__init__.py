"""Overlapping clips of one video, encoded together."""

from .shared_windows import SharedWindows, has_overlapping_clips, windows_of_engine, windows_of_model


__all__ = ["SharedWindows", "has_overlapping_clips", "windows_of_engine", "windows_of_model"]
