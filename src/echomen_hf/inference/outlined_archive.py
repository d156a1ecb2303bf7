"""What outlines add to the estimates of many files: columns, a table of beats, and pictures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..runs.files import escape_formula, replacing
from .archive_files import Place, require_table


if TYPE_CHECKING:
    from ..outline import VideoOutline

__all__ = ["OUTLINE_COLUMNS", "outline_cells", "require_beats", "write_beats", "write_pictures"]

OUTLINE_COLUMNS = ("EF_outline", "EF_outline_sd", "beats", "outline_reasons", "outline_beats")
"""Columns of the table of files; the last one holds what `write_beats` needs, so that an interrupted run keeps it."""

_BEAT_COLUMNS = ("beat", "ed_frame", "es_frame", "ed_seconds", "es_seconds", "edv", "esv", "unit", "EF_outline")


def outline_cells(outline: VideoOutline) -> dict[str, str]:
    """Write an outline into `OUTLINE_COLUMNS`."""
    lines = [
        [
            str(number),
            str(beat.ed_frame),
            str(beat.es_frame),
            f"{beat.ed_frame / outline.video.fps:.3f}",
            f"{beat.es_frame / outline.video.fps:.3f}",
            f"{beat.edv:.2f}",
            f"{beat.esv:.2f}",
            outline.unit,
            f"{beat.ejection_fraction:.2f}",
        ]
        for number, beat in enumerate(outline.beats, 1)
    ]
    values = (outline.ejection_fraction, outline.beat_sd)
    cells = ["" if math.isnan(value) else f"{value:.2f}" for value in values]
    return dict(zip(OUTLINE_COLUMNS, [*cells, str(len(lines)), " ".join(outline.reasons), json.dumps(lines)]))


def write_beats(rows: Sequence[dict[str, str]], output: str | Path) -> Place:
    """Write the beats of all files beside their table: `o.csv` gets `o_beats.csv`, with one row per beat.

    Args:
        rows: Rows of `predict_archive`.
        output: Table of the rows, or its URL.

    Returns:
        Where the table of beats is.
    """
    place = _beats_table(output)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["file", *_BEAT_COLUMNS])
    for row in rows:
        for line in json.loads(row["outline_beats"] or "[]"):
            table.writerow([escape_formula(row["file"]), *line])
    place.write(text.getvalue().encode())
    return place


def require_beats(output: str | Path) -> None:
    """Refuse to replace a file beside a table that is not its table of beats."""
    require_table(_beats_table(output), _BEAT_COLUMNS)


def _beats_table(output: str | Path) -> Place:
    place = Place(output)
    return place.beside(f"{PurePosixPath(place.name).stem}_beats.csv")


def write_pictures(outline: VideoOutline, folder: Path, name: str) -> None:
    """Write the overlay and the volume curve of a file of this name, each whole or not at all."""
    from ..outline import draw_volumes, write_overlay  # few runs draw anything

    inside = PurePosixPath(name.replace("://", "/"))
    inside = inside.relative_to(inside.anchor)
    with replacing(folder / f"{inside}.mp4") as partial:
        write_overlay(outline, partial, "mp4")
    with replacing(folder / f"{inside}.png") as partial:
        draw_volumes(outline).savefig(partial, format="png", dpi=150)
