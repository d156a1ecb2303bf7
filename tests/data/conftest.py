"""Tiny clips and EchoNet folders for the tests of the data layer."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.video_files import encode_video, gray_ramp


FIELDS = ["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split"]


def make_row(name: str, split: str, ejection_fraction: float = 55.5, **changes: Any) -> dict[str, Any]:
    row = dict(zip(FIELDS, [name, ejection_fraction, 40.25, 90.5, 32, 48, 50, 6, split]))
    return row | changes


class EchoNetFolder:
    """A folder of the EchoNet-Dynamic layout that a test may damage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "Videos").mkdir(parents=True)

    def add_video(self, name: str, num_frames: int = 6) -> Path:
        return encode_video(self.root / "Videos" / f"{name}.avi", gray_ramp(num_frames))

    def write_list(self, rows: list[dict[str, Any]], encoding: str = "utf-8") -> None:
        with open(self.root / "FileList.csv", "w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def write_tracings(self, tracings: dict[str, dict[int, list[tuple[float, float, float, float]]]]) -> None:
        """Video name to traced frame to chords."""
        with open(self.root / "VolumeTracings.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["FileName", "X1", "Y1", "X2", "Y2", "Frame"])
            for name, frames in tracings.items():
                for frame, chords in frames.items():
                    writer.writerows([f"{name}.avi", *chord, frame] for chord in chords)


@pytest.fixture
def echonet(tmp_path: Path) -> EchoNetFolder:
    """Three videos, one per split."""
    folder = EchoNetFolder(tmp_path / "EchoNet-Dynamic")
    for name in ("0XA", "0XB", "0XC"):
        folder.add_video(name)
    folder.write_list([make_row("0XA", "TRAIN", 61.5), make_row("0XB", "VAL", 35.25), make_row("0XC", "TEST", 44.0)])
    return folder


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    return make_row
