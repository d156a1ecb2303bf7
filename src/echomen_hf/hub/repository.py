"""Files of a model's repository, collected in a folder before the upload."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from huggingface_hub import ModelCard, RepoCard
from safetensors.torch import load_file
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from ..checkpoints import SMALL_MODEL_FOLDER
from ..model.modeling_echomen import EchoMENModel
from ..model.pipeline_echomen import EjectionFractionPipeline
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import read_json, write_json, write_text
from ..runs.run_folder import METRICS_FILE, RUN_FILE, run_folder
from .model_card import create_model_card
from .run_record import RunRecord


__all__ = ["CARD_FILE", "listing", "stage_repository", "write_card"]

CARD_FILE = "README.md"
EVALUATION_FOLDER = "evaluation"

_PATHS = frozenset({"data_dir", "model", "run.backbone_checkpoint", "run.model"})


def stage_repository(
    folder: str | Path,
    model: EchoMENModel,
    processor: EchoMENVideoProcessor | None,
    record: RunRecord,
    *,
    repo_id: str,
    source: str | Path | None = None,
    card: str | Path | None = None,
    tags: Sequence[str] = (),
    max_shard_size: int | str = "50GB",
) -> None:
    """Write everything that a model's repository holds: weights, configurations, code, card, metrics and figures.

    Only these files are copied from the run's folder: no optimiser states or other pickles, and no table of
    predictions, which repeats labels of the data set. Paths in `run.json` and `metrics.json` are reduced to names.

    Args:
        folder: Empty folder.
        model: Model.
        processor: Video processor. If it is missing, `record.warnings` says so.
        record: Record of the run; its `warnings` receive what the card cannot say.
        repo_id: Id of the repository, for the card.
        source: Folder of the run, whose settings are included.
        card: Model card to use instead of a generated one.
        tags: Further tags of the card.
        max_shard_size: Largest size of a file of weights.

    Raises:
        FileNotFoundError: If `card` does not exist.
        ValueError: If its metadata are invalid.
    """
    folder = Path(folder)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    if processor is not None:
        processor.save_pretrained(folder)
    else:
        record.warnings.append(
            "The repository will have no video processor: pass it, or publish it too by its own `push_to_hub`."
        )
    add_pipeline(folder)
    if source is not None and (settings := run_folder(Path(source)) / RUN_FILE).is_file():
        write_json(folder / RUN_FILE, names_only(read_json(settings)))
    figure_paths = {}
    if record.evaluation is not None:
        (folder / EVALUATION_FOLDER).mkdir()
        metrics = names_only(read_json(record.evaluation.metrics_path))
        write_json(folder / EVALUATION_FOLDER / METRICS_FILE, metrics)
        for name, path in record.evaluation.figures.items():
            shutil.copyfile(path, folder / EVALUATION_FOLDER / path.name)
            figure_paths[name] = f"{EVALUATION_FOLDER}/{path.name}"
    # By its weights, since a model that was trained further still names the folder that it was loaded from.
    if card is None and _has_weights_of_small_model(model):
        card = SMALL_MODEL_FOLDER / CARD_FILE
        record.warnings.clear()
    if card is not None:
        if not Path(card).is_file():
            raise FileNotFoundError(f"There is no model card {card}.")
        written = ModelCard.load(Path(card))
    else:
        written = create_model_card(
            model.config,
            record,
            repo_id=repo_id,
            processor=processor,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            figure_paths=figure_paths,
            tags=tags,
        )
    write_card(written, folder)


def _has_weights_of_small_model(model: EchoMENModel) -> bool:
    stored = load_file(SMALL_MODEL_FOLDER / SAFE_WEIGHTS_NAME)  # partly in 16 bits, loaded in 32
    own = model.state_dict()
    return own.keys() == stored.keys() and all(
        value.shape == stored[name].shape and torch.equal(value.cpu(), stored[name].to(value.dtype))
        for name, value in own.items()
    )


def names_only(content: Any, key: str = "") -> Any:
    """JSON content without folders: they may name people, and say nothing on another machine."""
    if isinstance(content, dict):
        return {name: names_only(value, name) for name, value in content.items()}
    if isinstance(content, list):
        return [names_only(value, key) for value in content]
    if not isinstance(content, str):
        return content
    path = PureWindowsPath(content)  # splits at both kinds of slashes
    return path.name if key in _PATHS or path.root or content.startswith("~") else content


def write_card(card: RepoCard, folder: Path) -> None:
    """Write a card where the Hub looks for it."""
    write_text(folder / CARD_FILE, f"{str(card).rstrip()}\n")


def add_pipeline(folder: Path) -> None:
    """Add the pipeline's code to a saved model, and register it in the saved configuration.

    `Pipeline.save_pretrained` would also change the configuration in memory, which may be saved elsewhere later, where
    this code is missing.
    """
    custom_object_save(EjectionFractionPipeline, folder)
    module = EjectionFractionPipeline.__module__.rsplit(".", 1)[-1]
    tasks = {
        task: {
            "impl": f"{module}.{EjectionFractionPipeline.__name__}",
            "pt": [model_class.__name__ for model_class in info["pt"]],
            "type": info["type"],
        }
        for task, info in EjectionFractionPipeline._registered_impl.items()
    }
    path = folder / CONFIG_NAME
    write_json(path, read_json(path) | {"custom_pipelines": tasks})


def listing(folder: str | Path) -> dict[str, int]:
    """Size in bytes of every file of a folder of `stage_repository` or `stage_space`, by path in the repository."""
    root = Path(folder)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
