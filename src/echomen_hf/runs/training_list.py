"""List of the videos that went into a model, by salted hashes of their names, to recognise them in a test set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import hashed_name, read_json, write_json
from .run_folder import run_folder


__all__ = ["TRAINING_LIST_FILE", "SeenVideos", "count_seen", "write_training_list"]

TRAINING_LIST_FILE = "training_videos.json"
"""The list, beside run.json. Publishing leaves it out."""


@dataclass(frozen=True)
class SeenVideos:
    """Videos of a test set, and patients, that went into the training of a model or the choice of its epoch."""

    videos: int
    patients: int


def write_training_list(
    folder: Path, splits: Iterable[Sequence[Mapping[str, Any]]], initial_model: str | Path | None = None
) -> None:
    """Write the list of a run.

    Args:
        folder: Folder of the run.
        splits: Rows of the splits that the training uses. Simulated videos, which no file has, are not listed.
        initial_model: Folder or Hub id of the model that the training starts from; its list is added, or that it is
            not known.
    """
    rows = [row for split in splits if len(split) and "video" in split[0] for row in split]
    videos = sorted({str(row["file_name"]) for row in rows})
    patients = sorted({str(row["patient"]) for row in rows if row.get("patient")})
    # Another salt for every data set, so that one table of hashes does not resolve all lists.
    salt = hashlib.sha256("\n".join(["salt", *videos]).encode()).hexdigest()[:16]
    own = {
        "salt": salt,
        "videos": sorted(hashed_name(name, salt) for name in videos),
        "patients": sorted(hashed_name(name, salt) for name in patients),
    }
    earlier: dict[str, Any] = {"lists": [], "complete": True}
    if initial_model is not None:
        earlier = read_training_lists(initial_model)
    lists = [own, *(found for found in earlier["lists"] if found != own)]
    write_json(folder / TRAINING_LIST_FILE, {"lists": lists, "complete": earlier["complete"]})


def read_training_lists(model: str | Path) -> dict[str, Any]:
    """Lists of a model's run and of those before it, and whether all of them are known."""
    path = run_folder(Path(model)) / TRAINING_LIST_FILE
    return read_json(path) if path.is_file() else {"lists": [], "complete": False}


def count_seen(model: str | Path, rows: Sequence[Mapping[str, Any]]) -> SeenVideos | None:
    """Count the rows of a test set that went into a model; `None` if that is not known."""
    found = read_training_lists(model)
    videos, patients = set(), set()
    for known in found["lists"]:
        names, salt = {*known["videos"]}, known["salt"]
        of_patients = {*known["patients"]}
        for row in rows:
            patient = row.get("patient")
            if patient and hashed_name(str(patient), salt) in of_patients:
                patients.add(patient)
                videos.add(row["file_name"])
            elif hashed_name(str(row["file_name"]), salt) in names:
                videos.add(row["file_name"])
    return SeenVideos(len(videos), len(patients)) if videos or found["complete"] else None
