"""The folder of a run: names of its files, who claims it, and what is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from .files import file_checksum, folder_or_id, read_json, weights_checksum, write_json
from .processes import is_main_process


__all__ = [
    "EMISSIONS_FILE",
    "FIGURES_FOLDER",
    "METRICS_FILE",
    "PREDICTIONS_FILE",
    "RUN_FILE",
    "STAGE_FINISHED_FILE",
    "TRAINING_ARGUMENTS_FILE",
    "claim_run",
    "describe_initial_weights",
    "is_finished",
    "last_complete_checkpoint",
    "run_folder",
    "weights_are_simulated",
]

logger = logging.get_logger(__name__)

RUN_FILE = "run.json"
"""Settings that a run was started with; a resumed run must match them."""

STAGE_FINISHED_FILE = TRAINER_STATE_NAME
"""Written to a stage's folder as the last thing that the stage does."""

_WEIGHTS = [f"run.{name}" for name in ("backbone_checkpoint", "backbone_sha256", "encoder", "encoder_sha256")]
_WEIGHTS += ["run.model", "run.model_sha256", "run.model_is_simulated"]

TRAINING_ARGUMENTS_FILE = "training_args.json"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
FIGURES_FOLDER = "figures"
EMISSIONS_FILE = "emissions.csv"  # of codecarbon, which transformers' `report_to` can switch on


def run_folder(folder: Path) -> Path:
    """Find the folder of the whole run for its own folder or that of one of its stages; absolute."""
    folder = folder.absolute()
    is_stage = folder.name in ("stage1", "stage2") and (folder.parent / RUN_FILE).is_file()
    return folder.parent if is_stage else folder


def is_finished(folder: Path) -> bool:
    """Tell whether the stage in this folder has written its result to the end."""
    return (folder / STAGE_FINISHED_FILE).is_file() and (folder / SAFE_WEIGHTS_NAME).is_file()


def last_complete_checkpoint(folder: Path) -> str | None:
    """Find the newest checkpoint of a stage that was written to its end."""
    numbered = {int(path.name.rsplit("-", 1)[1]): path for path in folder.glob("checkpoint-*") if path.is_dir()}
    for _, checkpoint in sorted(numbered.items(), reverse=True):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning(f"Passing over {checkpoint}, which was cut off while it was written.")
            continue
        return str(checkpoint)
    return None


def describe_initial_weights(
    model: str | Path | None = None,
    backbone_checkpoint: str | Path | None = None,
    encoder: str | Path | None = None,
    encoder_sha256: str | None = None,
) -> dict[str, Any]:
    """Say what weights a run starts from by name and checksum; its paths, which may name people, are not kept.

    Pre-trained encoders lie in files of several kinds, so that the checksum is that of the weights as loaded.
    """
    has_backbone = backbone_checkpoint is not None
    return {
        "backbone_checkpoint": Path(str(backbone_checkpoint)).name if has_backbone else None,
        "backbone_sha256": file_checksum(str(backbone_checkpoint)) if has_backbone else None,
        "encoder": None if encoder is None else folder_or_id(encoder),
        "encoder_sha256": encoder_sha256,
        "model": None if model is None else folder_or_id(model),
        "model_sha256": None if model is None else weights_checksum(model),
        "model_is_simulated": model is not None and _run_is_simulated(Path(model)),
    }


def weights_are_simulated(settings: Mapping[str, Any]) -> bool:
    """Whether this run and all runs before it, as far as they are known, used simulated videos only."""
    if not settings.get("run.simulation.simulated_videos") or settings.get("run.backbone_checkpoint"):
        return False
    if settings.get("run.model") is None:
        return True
    # Older runs have the path of the model instead.
    known = settings.get("run.model_is_simulated")
    return _run_is_simulated(Path(settings["run.model"])) if known is None else known


def _run_is_simulated(model: Path) -> bool:
    settings = run_folder(model) / RUN_FILE
    return settings.is_file() and weights_are_simulated(read_json(settings))


def claim_run(folder: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Record the settings of a run, or refuse those that differ from the run that the folder already holds.

    Args:
        folder: Output folder of the run.
        settings: All settings that decide its result.
        defaults: Values of settings that an older run does not name.
    """
    now = json.loads(json.dumps(settings, sort_keys=True, default=str))
    path = folder / RUN_FILE
    if path.is_file():
        before = {**defaults, **read_json(path)}
        for name in _WEIGHTS:
            # Older runs have paths and no checksums.
            if name not in before or Path(str(before[name])).name == now.get(name):
                before[name] = now.get(name)
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            listed = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed[:8])
            raise ValueError(
                f"{folder} holds a run with other settings ({listed}). Choose another `--output_dir`, or remove that "
                "folder to start over."
            )
    elif is_main_process():
        write_json(path, now)
