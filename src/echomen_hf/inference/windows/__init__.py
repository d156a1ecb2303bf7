"""Overlapping clips of one video, encoded together."""
