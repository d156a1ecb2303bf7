"""Masks of the left ventricle from the tracings of public data sets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..model.gray_conversion_echomen import square_pixels, usable_aspect
from ..model.nifti_reading_echomen import read_cfg
from .layouts.echonet_dynamic import TRACINGS_NAME, read_volume_tracings
from .layouts.registry import DataSet, read_data_set
from .layouts.tables import LayoutError, parse_number, read_csv, without_suffix


__all__ = ["Tracing", "polygon_mask", "read_tracings"]

_CAMUS_LEFT_VENTRICLE = 1
_NEEDS_NONE = "Simulation needs no tracings: leave out --data_dir to train and to evaluate on it."


@dataclasses.dataclass(frozen=True)
class Tracing:
    """The left ventricle as somebody traced it in one frame of a video.

    Args:
        video: Path of the video.
        file_name: Name of the video.
        split: Split of the video.
        frame: Number of the frame, from 0.
        moment: Moment of the beat.
        outline: Corners of the traced polygon, column and row in pixels, `(P, 2)`, or a NIfTI file with the mask.
    """

    video: str
    file_name: str
    split: str
    frame: int
    moment: Literal["end_diastole", "end_systole"]
    outline: NDArray[np.float64] | Path

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Make the mask of a frame of this size, bool, `(height, width)`.

        Raises:
            LayoutError: If a file with the mask cannot be read, or has another size than the video.
        """
        if isinstance(self.outline, np.ndarray):
            return polygon_mask(self.outline, height, width)
        mask = _nifti_mask(self.outline, self.frame)
        if mask.shape != (height, width):
            raise LayoutError(
                f"{self.outline}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, and {self.file_name} "
                f"{width} x {height}; copy both again from their origin."
            )
        return mask


def read_tracings(
    data_dir: str | os.PathLike[str], layout: str | None = None, split: str | None = None, **options: Any
) -> list[Tracing]:
    """Read the tracings of the left ventricle of a data set at end diastole and end systole.

    Args:
        data_dir: As in `load_videos`.
        layout: As in `load_videos`. EchoNet-Dynamic (chords), EchoNet-Pediatric (points of a contour) and CAMUS
            (masks) have tracings.
        split: `"train"`, `"validation"` or `"test"`. Defaults to all.
        options: As in `load_videos`.

    Returns:
        Tracings in the order of the videos. Videos without one are left out.

    Raises:
        LayoutError: If the data set or its tracings are missing or wrong, or the layout has none.
    """
    data_set = read_data_set(data_dir, layout, **options)
    if data_set.layout.name not in _READERS:
        raise LayoutError(
            f"{data_set.root} has the layout {data_set.layout.name}, which holds no tracings of the left ventricle; "
            f"{', '.join(_READERS)} do. {_NEEDS_NONE}"
        )
    tracings = _READERS[data_set.layout.name](data_set)
    if split is not None:
        tracings = [tracing for tracing in tracings if tracing.split == split]
    if not tracings:
        place = f"the {split} split of " if split is not None else ""
        raise LayoutError(f"No video in {place}{data_set.root} is traced at both ends of a beat. {_NEEDS_NONE}")
    return tracings


def _both(row: dict[str, Any], diastole: tuple[int, Any], systole: tuple[int, Any]) -> list[Tracing]:
    """Tracings of one video; each moment is a frame number and an outline."""
    return [
        Tracing(str(row["video"]), row["file_name"], row["split"], int(diastole[0]), "end_diastole", diastole[1]),
        Tracing(str(row["video"]), row["file_name"], row["split"], int(systole[0]), "end_systole", systole[1]),
    ]


def _of_echonet_dynamic(data_set: DataSet) -> list[Tracing]:
    _require_table(data_set.root / TRACINGS_NAME)
    traced = read_volume_tracings(data_set.root)
    found: list[Tracing] = []
    for row in data_set.rows:
        if tracing := traced.get(row["file_name"]):
            found += _both(
                row,
                (tracing.end_diastolic_frame, _around(tracing.end_diastolic_chords)),
                (tracing.end_systolic_frame, _around(tracing.end_systolic_chords)),
            )
    return found


def _around(chords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polygon through the ends of the chords, without the long axis in the first row, as EchoNet-Dynamic fills it."""
    return np.concatenate([chords[1:, :2], chords[:0:-1, 2:]])


def _of_echonet_pediatric(data_set: DataSet) -> list[Tracing]:
    path = Path(data_set.rows[0]["video"]).parents[1] / TRACINGS_NAME
    _require_table(path)
    header, lines = read_csv(path)
    columns = {column.lower(): position for position, column in enumerate(header)}
    if absent := [name for name in ("FileName", "X", "Y", "Frame") if name.lower() not in columns]:
        raise LayoutError(f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}.")
    contours: dict[str, dict[int, list[list[float]]]] = {}
    for line, values in lines:
        frame = values[columns["frame"]]
        if frame.lower().startswith("no "):  # "No Systolic"
            continue
        x, y, number = (
            parse_number(path, f"line {line}", name, values[columns[name]]) for name in ("x", "y", "frame")
        )
        contours.setdefault(without_suffix(values[columns["filename"]]), {}).setdefault(int(number), []).append([x, y])
    found: list[Tracing] = []
    for row in data_set.rows:
        frames = {frame: np.array(points) for frame, points in contours.get(row["file_name"], {}).items()}
        if len(frames) >= 2:
            by_area = sorted(frames.items(), key=lambda entry: _area(entry[1]))
            found += _both(row, by_area[-1], by_area[0])
    return found


def _area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def _of_camus(data_set: DataSet) -> list[Tracing]:
    found: list[Tracing] = []
    for row in data_set.rows:
        video = Path(row["video"])
        stem = video.name.split("_half_sequence")[0]
        masks = video.with_name(video.name.replace("_half_sequence", "_half_sequence_gt"))
        if not masks.is_file():
            raise LayoutError(
                f"{masks} does not exist; it holds the masks of {video.name}. Copy it from CAMUS. {_NEEDS_NONE}"
            )
        cfg = video.with_name(f"Info_{stem.rsplit('_', 1)[-1]}.cfg")
        values = read_cfg(cfg)
        # numbered from 1
        diastole, systole = (int(parse_number(cfg, name, name, values.get(name, ""))) - 1 for name in ("ED", "ES"))
        found += _both(row, (diastole, masks), (systole, masks))
    return found


_READERS: dict[str, Callable[[DataSet], list[Tracing]]] = {
    "echonet_dynamic": _of_echonet_dynamic,
    "echonet_pediatric": _of_echonet_pediatric,
    "camus": _of_camus,
}


def _require_table(path: Path) -> None:
    if not path.is_file():
        raise LayoutError(f"{path} does not exist; it holds the tracings. Copy it from the data set. {_NEEDS_NONE}")


def _nifti_mask(path: Path, frame: int) -> NDArray[np.bool_]:
    """Mask of one frame of CAMUS, upright and with square pixels as `read_nifti` gives the frames."""
    try:
        import nibabel
    except ImportError as error:
        raise LayoutError(f'{path} is NIfTI: install nibabel with pip install "echomen-hf[nifti]".') from error
    try:
        image = nibabel.load(path)
        labels = np.asanyarray(image.dataobj).squeeze()  # (x, y, t)
    except Exception as error:
        raise LayoutError(f"{path} is not a readable NIfTI file ({error}); copy it again.") from error
    if labels.ndim != 3 or not 0 <= frame < labels.shape[2]:
        raise LayoutError(f"{path} has no mask of frame {frame + 1}, which the .cfg beside it names; copy both again.")
    inside = (np.rint(labels[:, :, frame].T) == _CAMUS_LEFT_VENTRICLE).astype(np.uint8) * np.uint8(255)
    sides = np.abs(np.asarray(image.header.get_zooms()[:2], dtype=float))
    return square_pixels(inside, usable_aspect(float(sides[0] / sides[1]))) > 127


def polygon_mask(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Find the pixels whose centre lies in a polygon.

    Args:
        points: Corners in order, column and row in pixels, `(P, 2)`; the centre of the first pixel is (0, 0). The last
            corner is joined to the first.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.

    Returns:
        Mask, bool, `(height, width)`; what lies outside the picture is left out.

    Example:
    ```python
    >>> import numpy as np
    >>> from echomen_hf.data.tracings import polygon_mask

    >>> polygon_mask(np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]]), 4, 5).sum()
    np.int64(4)
    ```
    """
    points = np.asarray(points, dtype=np.float64)
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    rows = np.arange(height)[:, None]
    crosses = (y > rows) != (next_y > rows)  # (height, P)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x + (rows - y) * (next_x - x) / (next_y - y)
    # a row of pixels is inside after an odd number of edges
    first = np.clip(np.floor(at[crosses]) + 1, 0, width).astype(np.int64)
    edges = np.zeros((height, width + 1), dtype=np.int64)
    np.add.at(edges, (np.nonzero(crosses)[0], first), 1)
    return np.cumsum(edges, axis=1)[:, :width] % 2 == 1
