"""Arguments of the model and of its training, with the paper's defaults."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.training_args import ParallelMode
from transformers.utils import logging

from ..runs.files import folder_name
from .encoder_training import parse_train_encoder


__all__ = ["EchoMENTrainingArguments", "ModelArguments"]

logger = logging.get_logger(__name__)

DEFAULT_BATCH_SIZE = 20
"""Videos per step over all processes, as in the paper."""

PATH_ARGUMENTS = ("accelerator_config", "deepspeed", "fsdp_config", "output_dir", "resume_from_checkpoint")

# Metrics on VAL of which less is better, by the beginnings of their names.
ERROR_METRICS = ("mse", "mae", "balanced_mae")


@dataclass
class ModelArguments:
    """Model to train, and its initial weights."""

    model: str | None = HfArg(default=None, help="Folder or Hub id of a model to continue from.")
    model_config: dict | str | None = HfArg(
        default=None, help="EchoMENConfig fields of a new model: a mapping in a recipe, JSON on the command line."
    )
    backbone_checkpoint: str | None = HfArg(
        default=None, help="R(2+1)D weights for the encoder of a new model, in torchvision's names."
    )
    encoder: str | None = HfArg(
        default=None,
        help="Folder or Hub id of a pre-trained video model of transformers that is the encoder of a new model, such "
        "as VideoMAE or V-JEPA 2.",
    )

    def __post_init__(self) -> None:
        """Read a configuration given as JSON and reject contradictions."""
        if isinstance(self.model_config, str):
            try:
                self.model_config = json.loads(self.model_config)
            except json.JSONDecodeError as error:
                raise ValueError(f"`model_config` is not valid JSON ({error}): {self.model_config}") from error
        if not isinstance(self.model_config, dict | None):
            raise ValueError(
                f'`model_config` holds fields by name, such as {{"num_experts": 3}}, got {self.model_config}.'
            )
        of_new_model = (self.model_config, self.backbone_checkpoint, self.encoder)
        if self.model is not None and any(value is not None for value in of_new_model):
            raise ValueError(
                "`model` continues from a whole model; leave out `model_config`, `backbone_checkpoint` and `encoder`, "
                "which make a new one."
            )
        if self.encoder is not None and self.backbone_checkpoint is not None:
            raise ValueError("`backbone_checkpoint` has weights of R(2+1)D, and `encoder` is another one: give one.")


@dataclass
class EchoMENTrainingArguments(TrainingArguments):
    """Arguments of both training stages, besides those of transformers.

    The defaults are the paper's (section 3.2): plain SGD with momentum, learning rate 1e-4 times 0.1 every 10 epochs,
    batch 20, 40 epochs of stage 1 and 20 of stage 2. Ordinary arguments apply to both stages; a `stage2_` argument
    that is set replaces the ordinary one in stage 2.
    """

    # Fields of transformers that differ here, in their defaults or, as the first, in a second name on command lines.
    output_dir: str | None = HfArg(
        default=None, aliases=["--output"], help="Folder for checkpoints, logs and the model."
    )
    num_train_epochs: float = HfArg(default=40, help="Epochs of stage 1.")
    learning_rate: float = HfArg(default=1e-4, help="Initial learning rate.")
    optim: str = HfArg(default="sgd", help="Optimiser, by its name in transformers.")
    optim_args: str | None = HfArg(default=None, help="Optimiser options. Defaults to momentum=0.9 for SGD.")
    weight_decay: float = HfArg(default=1e-4, help="Weight decay, not on biases and normalisation.")
    lr_scheduler_type: str = HfArg(
        default="constant", help="Learning rate schedule; a constant rate decays every lr_decay_epochs."
    )
    per_device_train_batch_size: int | None = HfArg(
        default=None,
        help="Videos that a process computes at once. Defaults to its share of total_train_batch_size.",
    )
    per_device_eval_batch_size: int = HfArg(default=20, help="Clips per process and step on VAL.")
    max_grad_norm: float = HfArg(default=0.0, help="Gradient clipping. 0: none, as in the paper.")
    eval_strategy: str = HfArg(default="epoch", help="When to evaluate on VAL.")
    save_strategy: str = HfArg(default="epoch", help="When to save a checkpoint.")
    save_total_limit: int | None = HfArg(default=1, help="Checkpoints kept besides the best one.")
    load_best_model_at_end: bool = HfArg(default=True, help="Keep the best epoch on VAL.")
    logging_steps: float = HfArg(default=10, help="Steps between two log lines.")
    ddp_find_unused_parameters: bool | None = HfArg(
        default=False, help="Every trained parameter is used in every step, so the search is not needed."
    )
    remove_unused_columns: bool = HfArg(default=False, help="Data sets here make their own columns.")
    logging_nan_inf_filter: bool = HfArg(
        default=False, help="A loss that is not finite ends the training, so none is left to filter from the logs."
    )
    restore_callback_states_from_checkpoint: bool = HfArg(
        default=True, help="Let a resumed run continue its count of epochs without improvement."
    )
    seed: int = HfArg(default=42, help="Seed of initial weights, order of videos, clips and crops.")

    stage: str = HfArg(
        default="1",
        metadata={"choices": ["1", "2", "both"]},
        help="Training stage: 1 (contrastive and regression), 2 (experts and aggregator) or both.",
    )
    total_train_batch_size: int | None = HfArg(
        default=None,
        help="Videos per step, which processes and accumulation steps share. Defaults to 20, or to what "
        "per_device_train_batch_size makes.",
    )
    sync_batch_norm: bool = HfArg(
        default=False,
        help="Take the statistics of batch normalisation over the clips of all processes, on GPUs; several processes "
        "then train as one would.",
    )
    contrastive_weight: float = HfArg(default=0.5, help="Factor lambda on the contrastive loss of stage 1.")
    contrastive_temperature: float = HfArg(default=0.1, help="Temperature tau of the contrastive loss.")
    positive_bin_width: float = HfArg(
        default=1.0,
        help="Width in EF points of the label bins whose samples are positives of each other. 0: only the "
        "views of one sample are.",
    )
    label_distance: str = HfArg(
        default="l1",
        metadata={"choices": ["l1", "l2", "cdf", "none"]},
        help="Label distance d_ij of equation 2; none gives plain SupCon (ablation a).",
    )
    label_distance_scale: float = HfArg(default=1.0, help="Factor on the label distance.")
    train_encoder: str = HfArg(
        default="all",
        help="Part of the encoder that stage 1 trains: none, last_N (its last N blocks, such as last_2), lora "
        "(matrices of low rank beside its linear layers) or all.",
    )
    lora_rank: int = HfArg(default=8, help="Rank of these matrices.")
    num_views: int = HfArg(default=2, help="Random crops of each training clip in stage 1.")
    expert_bin_width: float = HfArg(
        default=1.0, help="Width in EF points of the label bins of the sample weights (equation 4)."
    )
    expert_min_count: float | None = HfArg(
        default=None, help="Smallest count of a bin. Defaults to 1 %% of the training set; 1: exactly the paper."
    )
    aggregator_gradients: str = HfArg(
        default="detached",
        metadata={"choices": ["detached", "joint"]},
        help="detached: the aggregator's loss does not change the experts; joint: it does.",
    )
    aggregator_weight_exponent: float = HfArg(
        default=0.0,
        help="Exponent p of the sample weights f^-p in the aggregator's loss. 0 is the paper, whose aggregator "
        "favours the expert of the frequent samples.",
    )
    expert_solver: str = HfArg(
        default="gradient",
        metadata={"choices": ["gradient", "least_squares"]},
        help="gradient trains the experts; least_squares computes, from the embeddings of embedding_draws, the "
        "weights to which that converges, and trains the aggregator alone.",
    )
    aggregator_learning_rate_factor: float = HfArg(
        default=1.0,
        help="Factor on the aggregator's learning rate in stage 2. At a large rate, which suits linear experts "
        "on few data, its softmax settles on one expert before the experts have converged.",
    )
    embedding_draws: int = HfArg(
        default=0,
        help="Random clips per video that are embedded once, before stage 2, whose epochs use them in turn; "
        "with as many draws as epochs, the result is that of training on videos. 0: encode clips in every epoch.",
    )
    lr_decay_epochs: float = HfArg(
        default=10, help="Epochs between two decays of a constant learning rate. 0: no decay."
    )
    lr_decay_factor: float = HfArg(default=0.1, help="Factor on the learning rate at a decay.")
    channels_last: bool = HfArg(
        default=False,
        help="Channels-last memory layout, faster for convolutions on CPUs and tensor cores; results differ in the "
        "last digits.",
    )
    keep_large_blocks: bool = HfArg(
        default=False, help="Keep freed memory for the next allocation: faster on Linux CPUs, same numbers."
    )
    early_stopping_patience: int | None = HfArg(
        default=None, help="Epochs without improvement on VAL after which a stage ends. Defaults to no early end."
    )

    stage2_num_train_epochs: float | None = HfArg(default=20, help="Epochs of stage 2.")
    stage2_learning_rate: float | None = HfArg(default=None, help="Learning rate of stage 2.")
    stage2_optim: str | None = HfArg(default=None, help="Optimiser of stage 2.")
    stage2_optim_args: str | None = HfArg(default=None, help="Optimiser options of stage 2.")
    stage2_weight_decay: float | None = HfArg(default=None, help="Weight decay of stage 2.")
    stage2_per_device_train_batch_size: int | None = HfArg(default=None, help="Batch size of stage 2.")
    stage2_lr_scheduler_type: str | None = HfArg(default=None, help="Schedule of stage 2.")
    stage2_lr_decay_epochs: float | None = HfArg(default=None, help="Epochs between decays in stage 2.")
    stage2_metric_for_best_model: str | None = HfArg(
        default=None,
        help="Metric on VAL by which stage 2 keeps an epoch, such as balanced_mae. Defaults to mae, as in the paper.",
    )

    def __post_init__(self) -> None:
        """Fill in what depends on the stage and check the values that transformers does not know."""
        self.stage = str(self.stage)
        self._check_choices()
        if self.optim_args is None and self.optim == "sgd":
            self.optim_args = "momentum=0.9"
        self.metric_for_best_model: str | None
        self.greater_is_better: bool | None
        self._chooses_metric = self.metric_for_best_model is None and self.load_best_model_at_end
        if self._chooses_metric:
            # The paper's selection: regression error of stage 1, absolute error of the ensemble in stage 2.
            self.metric_for_best_model = "mae" if self.stage == "2" else "mse"
        name = (self.metric_for_best_model or "").removeprefix("eval_")
        if self.greater_is_better is None and name.startswith(ERROR_METRICS):
            # transformers takes more to be better of anything that is not called a loss.
            self.greater_is_better = False
        refuse_sharded_training(self.fsdp, self.deepspeed)
        self._take_precision_of_launcher()
        if not (torch.cuda.is_available() or torch.xpu.is_available()):
            self.dataloader_pin_memory = False  # of no use on CPUs, and unknown to MPS
        if self.accelerator_config is None:
            # From pinned memory, batches are copied while the step before is computed.
            self.accelerator_config: Any = {"non_blocking": self.dataloader_pin_memory and not self.use_cpu}
        self._shares_batch = self.per_device_train_batch_size is None
        if self._shares_batch:
            self.per_device_train_batch_size = DEFAULT_BATCH_SIZE  # until the number of processes is known
        super().__post_init__()
        if self.n_gpu > 1:
            logger.warning(
                f"One process trains on one GPU, and {self.n_gpu - 1} of {self.n_gpu} stay idle. To use them, begin "
                f"the command with `accelerate launch --num_processes {self.n_gpu}`."
            )
            # Otherwise the Trainer would train on all of them, in one process, with a batch for each.
            self._n_gpu = 1
        is_launched = self.parallel_mode == ParallelMode.DISTRIBUTED
        if self.sync_batch_norm and is_launched and self.device.type not in ("cuda", "xpu"):
            raise ValueError(
                f"`sync_batch_norm` needs GPUs, and this training is on {self.device.type}: leave it out, or train in "
                "one process without a launcher."
            )
        share = self._share_of_batch()
        if self._shares_batch:
            self.per_device_train_batch_size = share
        self._check_values()

    def to_dict(self) -> dict[str, Any]:
        """Collect the arguments for files and trackers, in which folders go by their last part.

        The folders above may have patients' names.
        """
        content = super().to_dict()
        paths = {name: content[name] for name in PATH_ARGUMENTS if isinstance(content.get(name), str)}
        return content | {name: folder_name(path) for name, path in paths.items()}

    def _take_precision_of_launcher(self) -> None:
        """Take over the mixed precision that `accelerate launch` was given, so that there is one for everything."""
        given = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
        if self.bf16 or self.fp16 or given == "no":
            return
        if given not in ("bf16", "fp16"):
            raise ValueError(
                f"accelerate was told to train in {given!r} (`--mixed_precision`, or its configuration file), which "
                "this network does not know: choose bf16, fp16 or no."
            )
        setattr(self, given, True)

    def _share_of_batch(self) -> int:
        """Divide the batch by processes and accumulation steps; refuse what does not divide, or contradicts itself."""
        parts = self.world_size * self.gradient_accumulation_steps
        total, of_process = self.total_train_batch_size, int(self.per_device_train_batch_size or 0)
        if total is None:
            if not self._shares_batch:
                return of_process
            total = DEFAULT_BATCH_SIZE
        divisors = f"{self.world_size} processes and {self.gradient_accumulation_steps} accumulation steps"
        if total < 1 or total % parts:
            near = sorted({max(1, total // parts) * parts, (max(total, 0) // parts + 1) * parts})
            raise ValueError(
                f"A step of {total} videos cannot be divided by {divisors}: set `--total_train_batch_size` to "
                f"{' or '.join(map(str, near))}, or the number of processes to one that divides {total}."
            )
        if not self._shares_batch and of_process * parts != total:
            raise ValueError(
                f"`per_device_train_batch_size` {of_process} makes steps of {of_process * parts} videos on "
                f"{divisors}, and `total_train_batch_size` is {total}: give one of them, or set both."
            )
        return total // parts

    def _check_values(self) -> None:
        parse_train_encoder(self.train_encoder)
        for name in (
            "aggregator_learning_rate_factor",
            "contrastive_temperature",
            "expert_bin_width",
            "lora_rank",
            "lr_decay_factor",
            "num_views",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        for name in (
            "aggregator_weight_exponent",
            "contrastive_weight",
            "embedding_draws",
            "label_distance_scale",
            "lr_decay_epochs",
            "positive_bin_width",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("`early_stopping_patience` compares epochs on VAL: set `load_best_model_at_end`.")

    def _check_choices(self) -> None:
        # The fields of transformers have checks of their own.
        inherited = {each.name for each in fields(TrainingArguments)}
        for each in fields(self):
            choices, value = each.metadata.get("choices"), getattr(self, each.name)
            if each.name not in inherited and choices is not None and value not in choices:
                raise ValueError(f"`{each.name}` must be one of {', '.join(choices)}, got {value!r}.")

    @property
    def stages(self) -> tuple[int, ...]:
        """Numbers of the stages to run, in order."""
        return (1, 2) if self.stage == "both" else (int(self.stage),)

    @property
    def chosen_metric(self) -> str | None:
        """Metric that the user chose for the best epoch; `None` leaves the choice to each stage."""
        return None if self._chooses_metric else self.metric_for_best_model

    def for_stage(self, stage: int, output_dir: str) -> EchoMENTrainingArguments:
        """Make the arguments of one stage: a copy with that stage's values under the ordinary names."""
        changes: dict[str, Any] = {"stage": str(stage), "output_dir": output_dir}
        if self.run_name is not None:
            changes["run_name"] = f"{self.run_name}-stage{stage}"  # a tracker would append one stage to the other
        if stage == 2:
            own = {each.name: getattr(self, each.name) for each in fields(self) if each.name.startswith("stage2_")}
            changes.update({name.removeprefix("stage2_"): v for name, v in own.items() if v is not None})
            if "optim" in changes and "optim_args" not in changes:
                changes["optim_args"] = None
            if "metric_for_best_model" in changes:
                changes["greater_is_better"] = None
        return self.replace(**changes)

    def replace(self, **changes: Any) -> EchoMENTrainingArguments:
        """Copy the arguments with some of them changed; what is derived from others is derived anew."""
        # dataclasses.replace cannot be used: fields that are derived from others would come back as if given.
        clone = copy.copy(self)
        for name, value in changes.items():
            setattr(clone, name, value)
        if self._chooses_metric and "metric_for_best_model" not in changes:
            clone.metric_for_best_model, clone.greater_is_better = None, None
        # The batch of a process and that of all are one setting; the one that is changed replaces the other.
        if "per_device_train_batch_size" in changes:
            clone.total_train_batch_size = changes.get("total_train_batch_size")
        elif self._shares_batch or "total_train_batch_size" in changes:
            clone.per_device_train_batch_size = None
        clone.__post_init__()
        return clone


def refuse_sharded_training(fsdp: Any, deepspeed: Any) -> None:
    """Refuse FSDP and DeepSpeed, which the trainer's use of buffers and of both stages was not made for."""
    switches = {"DEEPSPEED": deepspeed, "FSDP": fsdp, "MEGATRON_LM": None}
    for name, asked in switches.items():
        if asked or os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes", "on"):
            raise ValueError(
                f"The network has 32 million parameters, which need no {name}: every GPU holds them all. Choose "
                "distributed_type MULTI_GPU in the configuration of accelerate, and if memory is short, "
                "`--activation_checkpointing true`, `--bf16 true` or `--gradient_accumulation_steps`."
            )
