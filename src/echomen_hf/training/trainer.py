"""Trainer of both EchoMEN stages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, EvalPrediction, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.clip_dataset import EvaluationClips
from ..data.collation import collate_clips
from ..data.device_clips import CLIP_FIELDS, with_pixel_values
from ..losses import squared_error
from ..metrics import ef_regression_metrics
from ..model.float32_precision_echomen import float32_precision
from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from ..runs.files import replacing
from .allocator import keep_large_blocks
from .arguments import EchoMENTrainingArguments
from .bf16_probe import guarded_against_bf16
from .embeddings import EvaluationEmbeddings
from .hub_trainer import HubTrainer
from .processes import broadcast_buffers, seed_processes_apart, synchronised_batch_norms
from .stage import Stage
from .stage_1 import Stage1
from .stage_2 import Stage2
from .tracking import EvaluationTracker, only_ejection_fractions


__all__ = ["EchoMENTrainer", "per_video_metrics"]


class EchoMENTrainer(HubTrainer):
    """Trains the stage `args.stage` of EchoMEN.

    Stage 1 trains encoder, adapter, projector and regression head, stage 2 experts and aggregator on the fixed rest;
    their losses are those of section 2 of the paper. Everything else is the Trainer of transformers: pass a video
    processor as `processing_class` and it is saved beside the weights.

    Args:
        model: Model to train.
        args: Arguments. Defaults to the paper's.
        data_collator: Function that makes batches. Defaults to `collate_clips`.
        train_dataset: `TrainingClips`, with `args.num_views` views in stage 1 and one in stage 2, or any data set of
            items with `pixel_values` or `embedding` and `labels`.
        eval_dataset: `EvaluationClips` or `EvaluationEmbeddings`, whose clips of one video are averaged before metrics
            are taken, or any data set of such items with `compute_metrics`.
        positional: Further arguments in the order of the Trainer.
        train_labels: EF in percent of the training set, shape (N,), from which sample weights and label statistics
            come. Defaults to those of `train_dataset`.
        kwargs: Anything else that a Trainer takes.
    """

    stage_classes: Mapping[str, Callable[..., Stage]] = {"1": Stage1, "2": Stage2}
    """Class of each stage by the value of `args.stage`."""

    def __init__(
        self,
        model: EchoMENModel | None = None,
        args: EchoMENTrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *positional: Any,
        train_labels: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else EchoMENTrainingArguments()
        if args.stage == "both":
            raise ValueError("A trainer runs one stage: set `stage` to 1 or 2, or call `echomen_hf.training.fit`.")
        own_metrics = isinstance(eval_dataset, (EvaluationClips, EvaluationEmbeddings)) or eval_dataset is None
        if args.metric_for_best_model in ("mse", "mae") and not own_metrics and kwargs.get("compute_metrics") is None:
            raise ValueError(
                f"The best epoch is chosen by {args.metric_for_best_model!r}, which only `EvaluationClips` give: pass "
                "one of them as `eval_dataset`, or `compute_metrics`, or another `metric_for_best_model`."
            )
        keep_large_blocks(args.keep_large_blocks)
        super().__init__(
            model, args, data_collator or collate_clips, train_dataset, eval_dataset, *positional, **kwargs
        )
        if args.channels_last:
            self.model.to(memory_format=torch.channels_last_3d)
        # A loss per batch is a mean, so the Trainer has to divide it by the accumulation steps.
        self.loss_is_scaled_for_ga = False
        if self.args.data_seed is None:
            # The order of videos is that of one seed, also when processes have random numbers of their own.
            self.accelerator.dataloader_config.data_seed = self.args.seed
        self.add_callback(EpochOfDataset())
        self.add_callback(BestCheckpointByStep())
        self.tracker = EvaluationTracker(self.callback_handler.callbacks)
        self.add_callback(self.tracker)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        labels = train_labels if train_labels is not None else labels_of(train_dataset)
        labels = None if labels is None else torch.as_tensor(np.asarray(labels, dtype=np.float64))
        # Both, so that labels and settings which stage 2 cannot work with are refused before stage 1.
        self.stages = {name: make(args, self.model, labels) for name, make in self.stage_classes.items()}
        self._parts: dict[str, torch.Tensor] = {}
        self._num_parts = 0
        self._watched: torch.Tensor | None = None
        self._term_names: list[str] = []

    @property
    def stage(self) -> Stage:
        """The stage that `args.stage` names."""
        return self.stages[self.args.stage]

    def prepare_stage(self) -> None:
        """Set the model up for the stage, as training does when it begins."""
        self.stage.prepare(self.model, self.train_dataset)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # Here and not in `train`, which may make the model anew by `model_init`.
        self.prepare_stage()
        # A frozen encoder has no gradients that could be wrong.
        encoder: Any = getattr(self.model, "encoder", self.model)
        is_at_risk = self.args.bf16 and any(parameter.requires_grad for parameter in encoder.parameters())
        num_frames = getattr(self.processing_class, "num_frames", None)
        num_clips = self.args.per_device_train_batch_size * self.args.num_views
        try:
            with (
                float32_precision(),
                synchronised_batch_norms(self.model, self.args.sync_batch_norm),
                guarded_against_bf16(self.model, num_frames, num_clips) if is_at_risk else nullcontext(),
            ):
                return super()._inner_training_loop(*args, **kwargs)
        finally:
            self.stage.leave(self.model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Low-rank matrices have to be there before they are loaded.
        self.prepare_stage()
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # A checkpoint of this trainer has all weights of the model: training on with a part of them would be another.
        names = [*load_result.missing_keys, *load_result.unexpected_keys]
        if names:
            raise ValueError(
                f"The checkpoint does not hold the weights of this model: {', '.join(names[:3])} and "
                f"{max(len(names) - 3, 0)} more are missing or unknown. Begin anew, with another `output_dir`."
            )

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Predict a data set and measure its errors, per video if it is `EvaluationClips` or their embeddings."""
        self._require_finite()
        # What is measured is what is saved.
        broadcast_buffers(self.model)
        self.compute_metrics: Any
        given = self.compute_metrics
        if given is None and isinstance(dataloader.dataset, (EvaluationClips, EvaluationEmbeddings)):
            self.compute_metrics, prediction_loss_only = per_video_metrics(dataloader.dataset), False
        has_experts = getattr(self.model.config, "prediction_head", None) == "experts"
        self.compute_metrics = self.tracker.catch(
            self.compute_metrics, dataloader.dataset, metric_key_prefix, has_experts
        )
        try:
            with float32_precision():
                output = super().evaluation_loop(
                    dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
                )
        finally:
            self.compute_metrics = given
        if self.tracker.caught is not None:
            output.metrics.update(self.tracker.caught.mean_weights())
        return output._replace(predictions=only_ejection_fractions(output.predictions))

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # Frames arrive as 8-bit integers and become floating point numbers where the model is.
        return with_pixel_values(super()._prepare_inputs(inputs))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns: list[str] = list(dict.fromkeys([*self._signature_columns, *CLIP_FIELDS]))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, EchoMENOutput]:
        """Compute the loss of the stage that is being trained; in evaluation, the squared error of the prediction.

        Args:
            model: Model, perhaps wrapped for several processes.
            inputs: `pixel_values`, (B, T, C, H, W) or (B, views, T, C, H, W), or `embedding`, (B, D) or (B, views, D);
                `labels`, EF in percent, (B,).
            return_outputs: Whether to return the output too.
            num_items_in_batch: Not used: losses are means over a batch.

        Raises:
            FloatingPointError: If the loss is not finite, on accelerators when the next log or checkpoint is due.
        """
        labels = inputs["labels"]
        features = {name: value for name, value in inputs.items() if name != "labels"}
        num_views = 1
        for name, ndim in (("pixel_values", 5), ("embedding", 2)):
            if name in features and features[name].ndim == ndim + 1:
                num_views = features[name].shape[1]
                features[name] = features[name].flatten(0, 1)  # (B, V, ...) -> (B * V, ...)
        outputs = model(**features)
        labels = labels.repeat_interleave(num_views)  # (B,) -> (B * V,)

        if not model.training:
            loss = squared_error(outputs.ejection_fraction, labels)
        else:
            loss, terms = self.stage.loss(self.model, outputs, labels, num_views)
            self._watch_finite(loss, terms)
            self._record(terms)
        outputs.loss = loss
        return (loss, outputs) if return_outputs else loss

    def _watch_finite(self, loss: torch.Tensor, terms: dict[str, torch.Tensor]) -> None:
        """Remember the first loss that is not finite; a look at every one would stop an accelerator at every step."""
        if list(terms) != self._term_names:
            self._require_finite()
            self._term_names = list(terms)
        values = torch.stack([loss.detach(), *(term.detach() for term in terms.values())]).float()
        now = torch.cat([values, values.new_full((1,), self.state.global_step)])
        self._watched = now if self._watched is None else torch.where(self._watched[0].isfinite(), now, self._watched)
        if loss.device.type == "cpu":
            self._require_finite()

    def _require_finite(self) -> None:
        """Raise an error if a loss since the last look was not finite."""
        if self._watched is None:
            return
        (loss, *terms, step), self._watched = self._watched.tolist(), None
        if not math.isfinite(loss):
            values = ", ".join(f"{name} {value:.4g}" for name, value in zip(self._term_names, terms))
            raise FloatingPointError(
                f"The loss of stage {self.args.stage} is not finite at step {int(step)} ({values}). "
                "Lower `learning_rate`, set `max_grad_norm`, or train without mixed precision; "
                "checkpoints written so far are intact."
            )

    def _record(self, terms: dict[str, torch.Tensor]) -> None:
        for name, value in terms.items():
            self._parts[name] = self._parts.get(name, 0.0) + value.detach()
        self._num_parts += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values, and with a training loss the means of its parts since the last log.

        Raises:
            FloatingPointError: If a loss since the last log was not finite.
        """
        self._require_finite()
        if "loss" in logs and self._num_parts:
            for name, total in self._parts.items():
                mean = self.accelerator.reduce(total / self._num_parts, reduction="mean")
                logs[name] = round(mean.item(), 6)
            self._parts, self._num_parts = {}, 0
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser, with the learning rates of the stage."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new:
            self.stage.set_learning_rates(optimizer, self.model)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make the learning rate schedule: a constant rate decays every `lr_decay_epochs`, as in the paper."""
        decay_epochs = self.args.lr_decay_epochs
        self.lr_scheduler: Any
        if self.lr_scheduler is None and decay_epochs and self.args.lr_scheduler_type == "constant":
            batches = len(self.get_train_dataloader())
            steps = decay_epochs * math.ceil(batches / self.args.gradient_accumulation_steps)
            factor = self.args.lr_decay_factor
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: factor ** math.floor(step / steps))
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the parameters that weight decay shrinks: weights of convolutions and linear layers only."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim > 1]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | tuple[torch.Tensor, ...] | None, torch.Tensor | None]:
        """Predict one batch: EF in percent (B,), expert predictions (B, M) and expert weights (B, M).

        `evaluation_loop` keeps the experts for trackers and returns the EF alone.
        """
        given, inputs = inputs, self._prepare_inputs(inputs)
        if "inputs" in self.args.include_for_metrics:
            given.update(inputs)  # `evaluation_loop` takes what the model saw from there
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        predicted = (outputs.ejection_fraction, outputs.expert_predictions, outputs.expert_weights)
        parts = tuple(part.float().detach() for part in predicted)
        # A function that someone gave to work on predictions expects no experts.
        predictions = parts if self.preprocess_logits_for_metrics is None else parts[0]
        return loss.detach(), predictions, inputs["labels"].detach()

    def save_state(self) -> None:
        """Write trainer_state.json, which names the best checkpoint by its step and not by its path."""
        path, self.state.best_model_checkpoint = self.state.best_model_checkpoint, None
        super().save_state()
        self.state.best_model_checkpoint = path

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._require_finite()  # so that a checkpoint never holds what such a loss has made of the weights
        # A resumed run has these in all processes, and so has the one that goes on.
        broadcast_buffers(self.model)
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir if output_dir is not None else self.args.output_dir)
        # Loading pickled arguments could run code; JSON is only data.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        (folder / "training_args.json").write_text(self.args.to_json_string() + "\n", encoding="utf-8")


def labels_of(dataset: Any) -> list[float] | None:
    """Find the labels of a training set, EF in percent; `None` if its videos would have to be read."""
    if hasattr(dataset, "ejection_fractions"):
        return dataset.ejection_fractions
    if isinstance(dataset, (list, tuple)):
        return [float(item["labels"]) for item in dataset]
    return None


def per_video_metrics(
    dataset: EvaluationClips | EvaluationEmbeddings,
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Make the `compute_metrics` that averages the clips of each video and measures the errors of the videos."""
    video_index, labels = dataset.video_index, dataset.labels

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        clips = np.asarray(prediction.predictions, dtype=np.float64).reshape(-1)
        videos = np.bincount(video_index, weights=clips) / np.bincount(video_index)
        metrics = ef_regression_metrics(videos, labels)
        kept = {name: value for name, value in metrics.items() if name.startswith(("mae", "balanced_mae"))}
        return {"mse": metrics["rmse"] ** 2, **{name: v for name, v in kept.items() if not math.isnan(v)}}

    return compute_metrics


class EpochOfDataset(TrainerCallback):
    """Tells the training set which epoch begins, also after a resume and with several processes."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Part the random numbers of processes; a resumed run then takes those that it has saved."""
        seed_processes_apart(args.seed)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Pass the number of the epoch on."""
        dataset: Any = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


class BestCheckpointByStep(TrainerCallback):
    """Takes the path of the best checkpoint, which may name people, out of checkpoints, and finds it by its step."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the state of the new checkpoint again, without the path."""
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            without_path = dataclasses.replace(state, best_model_checkpoint=None)
            with replacing(checkpoint / TRAINER_STATE_NAME) as partial:
                without_path.save_to_json(str(partial))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the best checkpoint of a training that is resumed, also where it was moved to."""
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        if state.best_model_checkpoint is None and checkpoint.is_dir():
            state.best_model_checkpoint = str(checkpoint)
