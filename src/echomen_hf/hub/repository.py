"""The files of a model's repository, put together in a folder before anything is sent anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, RepoCard
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import CONFIG_NAME

from ..checkpoints import SMALL_MODEL_FOLDER
from ..model.modeling_echomen import EchoMENModel
from ..model.pipeline_echomen import EjectionFractionPipeline
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import weights_checksum, write_json, write_text
from ..runs.run_folder import METRICS_FILE, RUN_FILE, run_folder
from .model_card import create_model_card
from .run_record import RunRecord


__all__ = ["CARD_FILE", "EVALUATION_FOLDER", "listing", "stage_repository", "write_card"]

CARD_FILE = "README.md"
EVALUATION_FOLDER = "evaluation"


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

    What is written is named here, and nothing else of a run's folder goes along: no optimiser states or other pickles,
    and no table of predictions, which repeats labels of the data set.

    Args:
        folder: Empty folder.
        model: Model.
        processor: Its video processor; without it the repository lacks one, and `record.warnings` says so.
        record: What the run left behind; its `warnings` receive what the card cannot tell.
        repo_id: Id of the repository, for the card.
        source: Folder of the run, whose settings go along.
        card: Model card to take instead of a generated one.
        tags: Further tags of the card.
        max_shard_size: Largest size of a file of weights.

    Raises:
        FileNotFoundError: If a card is named that does not exist.
        ValueError: If its metadata are broken.
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
    if source is not None and (run_folder(Path(source)) / RUN_FILE).is_file():
        shutil.copyfile(run_folder(Path(source)) / RUN_FILE, folder / RUN_FILE)
    figure_paths = {}
    if record.evaluation is not None:
        (folder / EVALUATION_FOLDER).mkdir()
        shutil.copyfile(record.evaluation.metrics_path, folder / EVALUATION_FOLDER / METRICS_FILE)
        for name, path in record.evaluation.figures.items():
            shutil.copyfile(path, folder / EVALUATION_FOLDER / path.name)
            figure_paths[name] = f"{EVALUATION_FOLDER}/{path.name}"
    # By its weights, since a model that was trained further still names the folder that it was loaded from.
    if card is None and weights_checksum(folder) == weights_checksum(SMALL_MODEL_FOLDER):
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


def write_card(card: RepoCard, folder: Path) -> None:
    """Write a card where the Hub looks for it.

    Args:
        card: Card.
        folder: Folder of the repository.
    """
    write_text(folder / CARD_FILE, f"{str(card).rstrip()}\n")


def add_pipeline(folder: Path) -> None:
    """Add the code of the pipeline to a saved model, and tell its configuration.

    `Pipeline.save_pretrained` does the same to the configuration of the model in memory, which may be saved elsewhere
    later, where there is no such code.

    Args:
        folder: Folder of the model.
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
    config = json.loads(path.read_text(encoding="utf-8")) | {"custom_pipelines": tasks}
    write_json(path, config)


def listing(folder: str | Path) -> dict[str, int]:
    """List what would be published.

    Args:
        folder: Folder of `stage_repository` or `stage_space`.

    Returns:
        Size in bytes by path in the repository, in order.
    """
    root = Path(folder)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
