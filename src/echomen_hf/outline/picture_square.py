"""The square of a picture that the outliner sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import functional

from ..model.sector_echomen import Sector, common_pixels


__all__ = ["PictureSquare"]

_CHUNK_PIXELS = 2**24


@dataclasses.dataclass(frozen=True)
class PictureSquare:
    """A square of a picture: the one around the ultrasound fan of a screen, else one that holds the whole picture.

    Args:
        left: First column, which may lie outside the picture.
        top: First row, likewise.
        side: Height and width in pixels.
        sector: The fan, outside of which the square is black; `None` if nothing is to be blackened.
    """

    left: int
    top: int
    side: int
    sector: Sector | None = None

    @classmethod
    def of(cls, frames: NDArray[np.uint8], sector: Sector) -> PictureSquare:
        """Choose the square of frames `(T, H, W)` in which this fan was found."""
        if sector.shape == "fan":
            return cls(*sector.square, sector)
        height, width = frames.shape[1:]
        side = max(height, width)
        return cls((width - side) // 2, (height - side) // 2, side)

    def cut_out(self, frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Show the square of frames `(T, H, W)` at `size` pixels, uint8, `(T, size, size)`."""
        if frames.shape[1:] == (size, size) and (self.left, self.top, self.side) == (0, 0, size):
            return frames
        small = np.empty((len(frames), size, size), dtype=np.uint8)
        chunk = max(1, _CHUNK_PIXELS // self.side**2)
        for start in range(0, len(frames), chunk):
            part = frames[start : start + chunk]
            square = self._cropped(part) if self.sector is None else self.sector.crop(part)
            resized = functional.resize(torch.from_numpy(square)[:, None], [size, size], antialias=True)
            small[start : start + chunk] = resized[:, 0].numpy()
        return small

    def _cropped(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        square = np.zeros((len(frames), self.side, self.side), dtype=np.uint8)
        in_picture, in_square = common_pixels((self.left, self.top, self.side), *frames.shape[1:])
        square[in_square] = frames[in_picture]
        return square

    def points_in(self, points: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        """Move points of the picture, columns and rows `(..., 2)`, into the square that is shown at `size` pixels."""
        return (points + 0.5 - (self.left, self.top)) * (size / self.side) - 0.5

    def put_back(self, logits: torch.Tensor, masks: NDArray[np.bool_]) -> None:
        """Enlarge logits of the square, `(T, size, size)`, and mark in masks `(T, H, W)` where they are above 0."""
        large = functional.resize(logits[:, None], [self.side, self.side], antialias=False)[:, 0]
        in_picture, in_square = common_pixels((self.left, self.top, self.side), *masks.shape[1:])
        masks[in_picture] = (large > 0).numpy()[in_square]
