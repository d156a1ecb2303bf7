"""Writing of what a benchmark measured of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echomen_hf.evaluation.report import package_versions
from echomen_hf.runs.files import weights_checksum, write_json


__all__ = ["write_measurement"]


def write_measurement(path: Path, table: str, model: Path, document: dict[str, Any]) -> None:
    """Print a table and write it.

    Args:
        path: File to write without its ending: the table goes to `.md`, the numbers to `.json`.
        table: Markdown.
        model: Folder of the model, whose checksum is written beside the numbers.
        document: Settings and numbers.
    """
    print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    origin = {"model_sha256": weights_checksum(model), "versions": package_versions()}
    write_json(path.with_suffix(".json"), {**document, **origin})
