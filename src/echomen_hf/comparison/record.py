"""Record of the settings, data set and versions that every run in a results folder shares."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.provenance import is_synthetic
from ..runs.files import folder_or_id, read_json, write_json
from ..runs.installed_versions import RESULT_PACKAGES, installed_versions
from ..runs.run_folder import describe_initial_weights
from ..training.fitting import COMPARED_ARGUMENTS
from .settings import ComparisonSettings


__all__ = ["claim_results_folder", "describe_comparison", "git_commit", "read_record"]

RECORD_FILE = "comparison.json"

IDENTITY = ("data", "settings", "versions")
"""Entries of the record that every later run must match."""

NOT_COMPARED = ("data.data_dir",)
"""The same data may lie in another folder."""


def describe_comparison(settings: ComparisonSettings, videos: Mapping[str, Any]) -> dict[str, Any]:
    """Content of comparison.json: everything that determines the results."""
    data_dir = settings.data_dir
    weights = describe_initial_weights(backbone_checkpoint=settings.backbone_checkpoint)
    training = {name: value for name, value in settings.training.to_dict().items() if name in COMPARED_ARGUMENTS}
    training.pop("seed")  # differs from cell to cell
    return {
        "data": {
            "data_dir": folder_or_id(data_dir),
            "file_list_sha256": settings.read_data_set().checksum,
            "synthetic": is_synthetic(data_dir),
            "videos": {split: len(rows) for split, rows in videos.items()},
        },
        "settings": {
            "backbone_checkpoint": weights["backbone_checkpoint"],
            "backbone_sha256": weights["backbone_sha256"],
            "bootstrap_samples": settings.bootstrap_samples,
            "crop_padding": settings.data.crop_padding,
            "eval_protocol": settings.data.eval_protocol,
            "model_config": dict(settings.model_config),
            "metric_for_best_model": settings.training.chosen_metric,
            "protocol": settings.protocol,
            "require_tracings": settings.data.require_tracings,
            **{name: value for name, value in settings.data.layout_options.items() if name != "split_file"},
            "schedule": settings.schedule,
            "statistics_videos": settings.data.statistics_videos,
            "training": training,
        },
        "versions": installed_versions(RESULT_PACKAGES),
        "git_commit": git_commit(),
    }


def claim_results_folder(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the record of a new results folder, or raise a `ValueError` if the existing one differs."""
    path = folder / RECORD_FILE
    now = json.loads(json.dumps(description, default=str))
    if path.is_file():
        before = read_record(folder)
        if isinstance(settings := before.get("settings"), dict):
            # Older records have a path and no checksum.
            weights = now["settings"]
            settings.setdefault("backbone_sha256", weights["backbone_sha256"])
            if Path(str(settings.get("backbone_checkpoint"))).name == weights["backbone_checkpoint"]:
                settings["backbone_checkpoint"] = weights["backbone_checkpoint"]
        old, new = (flatten({entry: found.get(entry) for entry in IDENTITY}) for found in (before, now))
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        changed = [name for name in changed if name not in NOT_COMPARED]
        if changed:
            listed = "; ".join(f"{name} was {old.get(name)} and is {new.get(name)}" for name in changed[:6])
            raise ValueError(
                f"{folder} holds results of another data set, other settings or other versions ({listed}). Choose "
                "another `--output`; nothing was changed."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty and holds no {RECORD_FILE}, so it is no results folder of a comparison. Choose "
            "another `--output`; nothing was changed."
        )
    else:
        write_json(path, now)


def read_record(folder: Path) -> dict[str, Any]:
    """Read comparison.json of a results folder."""
    return read_json(folder / RECORD_FILE)


def flatten(value: Any, name: str = "") -> dict[str, str]:
    """Leaves of nested mappings as JSON, by their dotted names."""
    if not isinstance(value, dict):
        return {name: json.dumps(value, sort_keys=True)}
    leaves: dict[str, str] = {}
    for key, entry in value.items():
        leaves |= flatten(entry, f"{name}.{key}".lstrip("."))
    return leaves


def git_commit() -> str | None:
    """Commit of the source tree, ending in `-dirty` if files differ. `None` outside a git repository."""
    source = Path(__file__).resolve()
    git = ["git", "-C", str(source.parent)]
    try:
        # An environment may lie in the tree of another project.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], check=True, capture_output=True)
        found = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
