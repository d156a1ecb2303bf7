"""Publishing of a model with the files of its run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo
from transformers.utils import logging

from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from .publishing import publish_folder, resolve_repository
from .repository import stage_repository
from .run_record import RunRecord, read_run


__all__ = ["push_model"]

logger = logging.get_logger(__name__)


def push_model(
    model: EchoMENModel,
    repo_id: str,
    *,
    video_processor: EchoMENVideoProcessor | None = None,
    folder: str | Path | None = None,
    evaluation: str | Path | None = None,
    data_dir: str | Path | None = None,
    record: RunRecord | None = None,
    card: str | Path | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
    tags: Sequence[str] | None = None,
    max_shard_size: int | str | None = None,
) -> CommitInfo:
    """Publish a model: weights, video processor, code, card, metrics and figures, in one commit.

    `EchoMENModel.push_to_hub` and `EchoMENTrainer.push_to_hub` call this function.

    Args:
        model: Model.
        repo_id: Id of the repository. Without an owner, the token's owner is used.
        video_processor: Video processor. Defaults to the one in `folder`.
        folder: Output folder of the training. Defaults to the folder that the model was loaded from, if any.
        evaluation: Output folder of the evaluation, see `read_run`.
        data_dir: Folder of the training data, see `read_run`.
        record: Record of the run. Defaults to what these folders hold.
        card: Model card to publish instead of a generated one.
        private: Whether a new repository is private. Defaults to the owner's setting.
        token: Token with write access. Defaults to the stored one.
        revision: Branch. Defaults to the main branch.
        create_pr: Whether to open a pull request instead.
        commit_message: Title of the commit.
        commit_description: Description of the commit.
        tags: Further tags of the card.
        max_shard_size: Largest size of a file of weights.

    Returns:
        The commit.

    Raises:
        ValueError: See `publish_folder`, `read_run` and `stage_repository`, as for the other errors.
    """
    repo_id, _ = resolve_repository(repo_id, private=private, token=token)
    if folder is None and model.name_or_path and Path(model.name_or_path).is_dir():
        folder = model.name_or_path
    if video_processor is None and folder is not None and any(Path(folder).glob("*preprocessor_config.json")):
        video_processor = EchoMENVideoProcessor.from_pretrained(folder)
    record = record if record is not None else read_run(folder, evaluation, data_dir)
    with tempfile.TemporaryDirectory(prefix="echomen_hf_") as staged:
        stage_repository(
            staged,
            model,
            video_processor,
            record,
            repo_id=repo_id,
            source=folder,
            card=card,
            tags=tags or (),
            max_shard_size=max_shard_size or "50GB",
        )
        for warning in record.warnings:
            logger.warning(warning)
        return publish_folder(
            staged,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or "Upload EchoMEN model",
            commit_description=commit_description,
        )
