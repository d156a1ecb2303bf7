"""Publishing by a trainer, without pickled files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging


if TYPE_CHECKING:
    from ..hub import RunRecord

__all__ = ["HubTrainer"]

logger = logging.get_logger(__name__)


class HubTrainer(Trainer):
    """Trainer that writes this package's model card and publishes by `echomen_hf.hub.push_model`.

    The Trainer of transformers publishes its pickled arguments and, with some values of `hub_strategy`, pickled
    optimiser states.
    """

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, or refuse one that holds something else, before training begins."""
        from ..hub.publishing import create_repository

        if not self.is_world_process_zero():
            return
        self.hub_model_id = create_repository(
            self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name,
            private=private if private is not None else self.args.hub_private_repo,
            token=token if token is not None else self.args.hub_token,
        )
        self.push_in_progress = None

    def create_model_card(
        self, *, model_name: str | None = None, license: str | None = None, tags: str | Sequence[str] = (), **_: Any
    ) -> None:
        """Write the model card of the run so far to the output folder, as README.md."""
        from ..hub import create_model_card
        from ..hub.repository import write_card

        if not self.is_world_process_zero():
            return
        output_dir = Path(str(self.args.output_dir))
        output_dir.mkdir(parents=True, exist_ok=True)
        card = create_model_card(
            self.model.config,
            self._run_record(),
            repo_id=model_name or self.hub_model_id or output_dir.absolute().name,
            processor=self.processing_class,
            num_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            license=license,
            tags=[tags] if isinstance(tags, str) else tags,
        )
        write_card(card, output_dir)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """Publish the model with its video processor, code, card, metrics and figures.

        `kwargs` are options of `push_model`. The upload is finished when the call returns, also with `blocking=False`.
        Processes other than the first return `None`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # In every process, since weights may have to be gathered.
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        return self._publish(commit_message, token, revision, private, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        try:
            self._publish(f"Training in progress, step {self.state.global_step}")
        except (OSError, ValueError) as error:
            # A lost connection must not end days of training; the last push, after training, does raise.
            logger.warning(f"The checkpoint of step {self.state.global_step} was not published: {error}")

    def _publish(
        self,
        commit_message: str | None,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        evaluation: str | Path | None = None,
        data_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> CommitInfo:
        from ..hub import push_model

        output_dir = Path(str(self.args.output_dir))
        tags = kwargs.pop("tags", None) or []
        return push_model(
            self.accelerator.unwrap_model(self.model),
            self.hub_model_id or self.args.hub_model_id or output_dir.absolute().name,
            video_processor=self.processing_class,
            folder=output_dir,
            record=self._run_record(evaluation, data_dir),
            private=private if private is not None else self.args.hub_private_repo,
            token=token if token is not None else self.args.hub_token,
            revision=revision if revision is not None else self.args.hub_revision,
            commit_message=commit_message,
            tags=[*(self.model.model_tags or []), *([tags] if isinstance(tags, str) else tags)],
            **kwargs,
        )

    def _run_record(self, evaluation: str | Path | None = None, data_dir: str | Path | None = None) -> RunRecord:
        from ..hub.run_record import StageRecord, read_run

        record = read_run(str(self.args.output_dir), evaluation, data_dir)
        # The stage's own files appear only when it ends, since they mark it as finished.
        stage = int(self.args.stage)
        if self.state.global_step and stage not in record.stages:
            record.stages[stage] = StageRecord(json.loads(self.args.to_json_string()), dataclasses.asdict(self.state))
        return record
