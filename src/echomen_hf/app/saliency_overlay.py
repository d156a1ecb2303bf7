"""The saliency painted over the frames of a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..outline.browser_video import resize_image


__all__ = ["overlay_saliency"]

_COLOUR_MAP = "inferno"
_OPACITY = 0.85


def overlay_saliency(
    frames: Iterable[NDArray[np.uint8]], saliency: Iterable[NDArray[np.float32]]
) -> Iterator[NDArray[np.uint8]]:
    """Paint maps between 0 and 1, of any size, over frames `(height, width)`: stronger is brighter and more opaque."""
    import matplotlib  # most processes that draw a clip need no colours, and start faster without it

    strength = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    transparency = 1 - _OPACITY * strength  # (256, 1)
    paint = 255 * _OPACITY * strength * matplotlib.colormaps[_COLOUR_MAP](strength[:, 0])[:, :3]  # (256, 3)
    paint = paint.astype(np.float32)
    for frame, values in zip(frames, saliency):
        level = np.rint(resize_image(values, frame.shape).clip(0, 1) * 255).astype(np.uint8)
        yield np.rint(transparency[level] * frame[..., None] + paint[level]).astype(np.uint8)
