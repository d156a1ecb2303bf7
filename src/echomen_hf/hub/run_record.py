"""The files that a training run and its evaluation left on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformers.trainer import TRAINER_STATE_NAME

from ..data.layouts.registry import read_data_set
from ..data.layouts.tables import LayoutError
from ..data.provenance import ECHONET_DYNAMIC_VIDEOS, is_synthetic
from ..evaluation.report import read_metrics_json, read_predictions_csv
from ..runs.files import read_json, weights_checksum
from ..runs.run_folder import (
    EMISSIONS_FILE,
    FIGURES_FOLDER,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    TRAINING_ARGUMENTS_FILE,
    run_folder,
)


__all__ = ["RunRecord", "StageRecord", "read_run"]


@dataclass(frozen=True)
class StageRecord:
    """Training arguments, trainer state and CO2-equivalent emissions in kg (`None` if not measured) of one stage."""

    arguments: dict[str, Any]
    state: dict[str, Any]
    emissions: float | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    """metrics.json with its path, figures by name, and the table of predictions if there is one."""

    document: dict[str, Any]
    metrics_path: Path
    figures: dict[str, Path]
    predictions: pd.DataFrame | None


@dataclass
class RunRecord:
    """Everything that the files of a run say about its model.

    Args:
        settings: Content of run.json, empty if unknown.
        stages: Record of every stage that was found, by number.
        evaluation: Evaluation of the model, or `None`.
        videos: Rows of the data set, see `read_data_set`; empty if unknown.
        layout: Name of its layout; empty if unknown.
        trained_on_videos: Whether these are also the training data, by their checksum.
        evaluated_on_synthetic: Whether the evaluation's data are simulated; `None` if unknown.
        videos_are_synthetic: Whether `videos` are simulated; `None` if unknown.
        warnings: What could not be found, and what to do about it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    stages: dict[int, StageRecord] = field(default_factory=dict)
    evaluation: EvaluationRecord | None = None
    videos: list[dict[str, Any]] = field(default_factory=list)
    layout: str = ""
    trained_on_videos: bool = False
    evaluated_on_synthetic: bool | None = None
    videos_are_synthetic: bool | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def evaluated_on_videos(self) -> bool:
        """Whether all predictions of the evaluation are of videos in `videos`."""
        if self.evaluation is None or self.evaluation.predictions is None:
            return False
        return set(self.evaluation.predictions["FileName"]) <= {row["file_name"] for row in self.videos}

    @property
    def training_data(self) -> str:
        """Kind of training data: `synthetic`, `echonet_dynamic`, `other` or `unknown`."""
        if self.settings.get("run.simulation.simulated_videos"):
            return "synthetic"
        if not self.trained_on_videos:
            return "unknown"
        if self.videos_are_synthetic:
            return "synthetic"
        counts = Counter(row["split"] for row in self.videos)
        return "echonet_dynamic" if counts == ECHONET_DYNAMIC_VIDEOS else "other"


def read_run(
    folder: str | Path | None = None, evaluation: str | Path | None = None, data_dir: str | Path | None = None
) -> RunRecord:
    """Collect what is known about a run.

    Args:
        folder: Output folder of training, or of one of its stages; `None` if the model has none.
        evaluation: Output folder of `echomen evaluate`. Defaults to the folder, in or beside the run's folder, that
            names this model.
        data_dir: Folder of the data set. Defaults to a folder here that has the name which the evaluation gives.

    Returns:
        The record; its `warnings` name what is missing.

    Raises:
        FileNotFoundError: If a named evaluation or data folder does not exist.
        ValueError: If a file is damaged, or several evaluations match.
    """
    record = RunRecord()
    model = Path(folder).absolute() if folder is not None else None
    root = run_folder(model) if model is not None else None
    if root is not None and (root / RUN_FILE).is_file():
        record.settings = read_json(root / RUN_FILE)
    else:
        record.warnings.append(
            f"The training settings are unknown: {RUN_FILE} is missing"
            + (f" in {root}." if root is not None else ", since the model was not loaded from the folder of a run.")
        )
    # A model of stage 1 owes nothing to the stage 2 that followed.
    own_stages = (1,) if model is not None and model != root and model.name == "stage1" else (1, 2)
    for stage in own_stages:
        found = read_stage(root, stage) if root is not None else None
        if found is not None:
            record.stages[stage] = found
    metrics_path = find_evaluation(model, evaluation)
    evaluated = read_metrics_json(metrics_path).get("model_sha256") if metrics_path is not None else None
    if evaluated is not None and model is not None and weights_checksum(model) not in (None, evaluated):
        record.warnings.append(
            f"Results are unknown: {metrics_path} is about other weights than those in {model}. Run "
            "`echomen evaluate` again."
        )
    elif metrics_path is None:
        record.warnings.append(
            "Results are unknown: there is no evaluation of this model. Run `echomen evaluate`, and name its output "
            "folder as `--evaluation`."
        )
    else:
        record.evaluation = read_evaluation(metrics_path, record.warnings)
        record.evaluated_on_synthetic = record.evaluation.document.get("synthetic_data")
    read_data(record, Path(data_dir) if data_dir is not None else None)
    return record


def read_stage(root: Path, stage: int) -> StageRecord | None:
    """Record of a stage in the folder of the run or of the stage alone; `None` if it is not complete."""
    for folder in (root / f"stage{stage}", root):
        paths = folder / TRAINING_ARGUMENTS_FILE, folder / TRAINER_STATE_NAME
        if not all(path.is_file() for path in paths):
            continue
        arguments, state = map(read_json, paths)
        if str(arguments.get("stage")) == str(stage):
            emissions = folder / EMISSIONS_FILE
            measured = float(pd.read_csv(emissions)["emissions"].sum()) if emissions.is_file() else None
            return StageRecord(arguments, state, measured)
    return None


def find_evaluation(model: Path | None, evaluation: str | Path | None) -> Path | None:
    """Path of the metrics.json of a model, or `None`."""
    if evaluation is not None:
        path = Path(evaluation) / METRICS_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: name the output folder of `echomen evaluate` as the evaluation."
            )
        return path
    if model is None:
        return None
    root = run_folder(model)
    last = root / ("stage2" if (root / "stage2" / TRAINER_STATE_NAME).is_file() else "stage1")
    # The run's folder and that of its last stage hold one and the same model.
    folders = {root, last} if model in (root, last) else {model}
    paths = sorted({path for place in (model, root, root.parent) for path in place.glob(f"*/{METRICS_FILE}")})
    documents = {path: read_metrics_json(path) for path in paths}
    checksum = weights_checksum(model)
    # A name is that of many models, and finds the evaluation of earlier weights.
    found = [path for path in paths if checksum and documents[path].get("model_sha256") == checksum]
    found = found or [path for path in paths if any(names_model(documents[path], own) for own in folders)]
    # Results are those of the test split, if it was evaluated.
    on_test = [path for path in found if documents[path].get("split") == "test"]
    if len(on_test or found) > 1:
        listed = ", ".join(str(path.parent) for path in on_test or found)
        raise ValueError(f"Several evaluations of {model} were found ({listed}); choose one as `--evaluation`.")
    return next(iter(on_test or found), None)


def names_model(document: dict[str, Any], folder: Path) -> bool:
    """Whether an evaluation names a folder: by its name, or as older ones do by a relative or absolute path."""
    named = Path(str(document.get("model", "")))
    if named.is_absolute():
        return named.resolve() == folder.resolve()
    parts = [part for part in named.parts if part not in (".", "..")]
    return bool(parts) and list(folder.parts[-len(parts) :]) == parts


def read_evaluation(metrics_path: Path, warnings: list[str]) -> EvaluationRecord:
    """Read metrics, predictions and figures, and add what is missing to `warnings`."""
    folder = metrics_path.parent
    predictions_path = folder / PREDICTIONS_FILE
    predictions = read_predictions_csv(predictions_path) if predictions_path.is_file() else None
    if predictions is None:
        warnings.append(f"Errors by further columns are unknown: {predictions_path} is missing.")
    figures = {path.stem: path for path in sorted((folder / FIGURES_FOLDER).glob("*.png"))}
    if not figures:
        warnings.append(f"There are no figures in {folder / FIGURES_FOLDER}.")
    return EvaluationRecord(read_metrics_json(metrics_path), metrics_path, figures, predictions)


def read_data(record: RunRecord, data_dir: Path | None) -> None:
    """Read the list of videos, and find out whether the model was trained on it."""
    if data_dir is not None and not data_dir.exists():
        raise FileNotFoundError(f"{data_dir} does not exist: name the folder of the data set.")
    is_named, found = data_dir is not None, None
    evaluated = {} if record.evaluation is None else record.evaluation.document
    if not is_named and evaluated:
        data_dir = Path(str(evaluated["data_dir"]))
    if data_dir is not None:
        try:
            found = read_data_set(data_dir, **(record.settings.get("run.layout_options") or {}))
        except LayoutError:
            if is_named:
                raise
    # Another folder may have the name that the evaluation gives.
    if found is None or (not is_named and evaluated.get("file_list_sha256") not in (None, found.checksum)):
        record.warnings.append(
            "The training data are unknown"
            + (f": {data_dir} is not here" if data_dir is not None else "")
            + ". Name their folder as `--data_dir`."
        )
        return
    record.videos, record.layout = found.rows, found.layout.name
    record.videos_are_synthetic = is_synthetic(found.root)
    record.trained_on_videos = record.settings.get("run.file_list_sha256") == found.checksum
    if not record.trained_on_videos:
        record.warnings.append(
            f"The training data are unknown: those in {data_dir} are not the ones that {RUN_FILE} names by their "
            "checksum. Name the folder that the model was trained on as `--data_dir`."
        )
