"""The layouts that are known, and the reading of a folder in any of them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...runs.files import file_checksum
from .camus import CAMUS
from .echonet_dynamic import ECHONET_DYNAMIC
from .echonet_pediatric import ECHONET_PEDIATRIC
from .layout import Layout
from .mimic_lvvol import MIMIC_LVVOL
from .splits import assign_splits, require_separate_patients
from .table import TABLE
from .tables import LayoutError, listed


__all__ = ["LAYOUTS", "DataSet", "find_layout", "read_data_set"]

logger = logging.get_logger(__name__)

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        ECHONET_DYNAMIC,
        ECHONET_PEDIATRIC,
        CAMUS,
        MIMIC_LVVOL,
        TABLE,
    )
}
"""Layouts by name. The last is taken only where no other fits."""

_MOST_LISTED = 20


@dataclass(frozen=True)
class DataSet:
    """Rows of a data set, each with its split, see `VideoRows`.

    Args:
        root: Absolute path of the folder or table.
        layout: Its layout.
        rows: Its rows.
        left_out: Videos that are not among them, and why.
        checksum: SHA-256 of the table or, if there are several files, of all rows; it does not depend on the place.
    """

    root: Path
    layout: Layout
    rows: list[dict[str, Any]]
    left_out: list[str]
    checksum: str

    @property
    def fingerprint(self) -> str:
        """Hash of everything that the data set is made from, to notice an edited table or a replaced video."""
        digest = hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode())
        for row in self.rows:
            status = os.stat(row["video"])
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def find_layout(root: Path, name: str | None = None) -> Layout:
    """Find a layout by its name, or the one that a folder or table has.

    Raises:
        LayoutError: If there is no such folder, or it has no known layout or several.
        ValueError: If there is no layout of that name.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise ValueError(f"Unknown layout {name!r}; choose from {', '.join(LAYOUTS)}.")
        return LAYOUTS[name]
    if not root.exists():
        # Its message says how to get data.
        return ECHONET_DYNAMIC
    found = [layout for layout in LAYOUTS.values() if layout is not TABLE and layout.matches(root)]
    if len(found) > 1:
        listing = " and ".join(f"{layout.name} ({layout.looks_for})" for layout in found)
        raise LayoutError(f"{root} has two layouts: {listing}. Choose one as `layout`, or separate the two.")
    if found:
        return found[0]
    if TABLE.matches(root):
        return TABLE
    if (root / "FileList.csv").is_file():
        return ECHONET_DYNAMIC
    wanted = "\n".join(f"  {layout.name}: {layout.looks_for}" for layout in LAYOUTS.values())
    raise LayoutError(
        f"{root} has no layout that is known. Pass another folder, or name the layout and its columns. Looked for\n"
        f"{wanted}"
    )


def read_data_set(
    data_dir: str | os.PathLike[str],
    layout: str | None = None,
    *,
    split_by: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    **options: Any,
) -> DataSet:
    """Read the rows of a data set and settle the split of each, without opening a video.

    Args:
        data_dir: As in `load_videos`.
        layout: As in `load_videos`.
        split_by: As in `load_videos`.
        split_file: As in `load_videos`.
        options: Options of the layout, as in `load_videos`; those that are `None` count as not given.

    Returns:
        Rows, the layout that was found, what was left out and why, and a checksum.

    Raises:
        LayoutError: If the folder is missing, or its files are wrong.
        ValueError: If there is no such layout, or it has no such option.
    """
    root = Path(data_dir).expanduser().absolute()
    found = find_layout(root, layout)
    if found is not ECHONET_DYNAMIC and not root.exists():
        raise LayoutError(f"{root} does not exist; check the path of the data set.")
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - found.options):
        raise ValueError(
            f"The layout {found.name} of {root} has no option {', '.join(unknown)}; it has "
            f"{', '.join([*sorted(found.options), 'split_by', 'split_file'])}."
        )
    read = found.read(root, **given)
    if read.left_out:
        logger.warning_once(
            f"{root}: left out {len(read.left_out)} of {len(read.left_out) + len(read.rows)} videos: "
            f"{listed(read.left_out, _MOST_LISTED)}."
        )
    if split_by is not None or any(row["split"] is None for row in read.rows):
        assign_splits(read.rows, root, split_by or found.unsplit, None if split_file is None else Path(split_file))
    require_separate_patients(read.rows, root)
    if read.table is not None:
        checksum = file_checksum(read.table)
    else:
        content = [{name: value for name, value in row.items() if name != "video"} for row in read.rows]
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return DataSet(root, found, read.rows, read.left_out, checksum)
