"""Masks of a beating ventricle, and an outliner that knows them."""

from types import SimpleNamespace

import numpy as np


def beating_masks(num_frames=120, period=40, size=112, shrink=0.8):
    """Half ellipsoids whose lengths shrink to `shrink` and back in every period, bool, (frames, size, size)."""
    rows, columns = np.mgrid[:size, :size] - size / 2
    scale = 1 - (1 - shrink) * (1 - np.cos(2 * np.pi * np.arange(num_frames) / period)) / 2
    scale = size / 112 * scale[:, None, None]
    inside = (rows / (32 * scale)) ** 2 + (columns / (17 * scale)) ** 2 <= 1
    return inside & (rows <= 18 * scale)


def beating_heart(**options):
    """Frames of a dark ventricle in speckle that moves, uint8, (frames, size, size); see `beating_masks`."""
    masks = beating_masks(**options)
    speckle = np.random.default_rng(0).integers(90, 200, masks.shape, np.uint8)
    return np.where(masks, np.uint8(20), speckle)


class DarkIsVentricle:
    """Stands for an outliner: takes what is dark for the ventricle."""

    def __init__(self, ef_error=None):
        self.config = SimpleNamespace(ef_error_quantile=ef_error)

    def predict_masks(self, frames, fps, *, sector=None):
        return frames < 60


class KnownMasks:
    """Stands for an outliner: gives the masks that it was given."""

    def __init__(self, masks, ef_error=None):
        self.masks = masks
        self.config = SimpleNamespace(ef_error_quantile=ef_error)

    def predict_masks(self, frames, fps, *, sector=None):
        assert frames.shape == self.masks.shape and frames.dtype == np.uint8 and fps > 0
        return self.masks.copy()
