"""Training arguments of EchoMEN: those of transformers, the two stages' own, and the paper's defaults."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from ..model.video_reading_echomen import DECODERS


__all__ = ["DataArguments", "EchoMENTrainingArguments", "ModelArguments", "SimulationArguments"]

# Value of stage 2 by the name of the ordinary argument that it takes the place of.
STAGE_2_FIELDS = {
    "num_train_epochs": "stage2_num_train_epochs",
    "learning_rate": "stage2_learning_rate",
    "optim": "stage2_optim",
    "optim_args": "stage2_optim_args",
    "weight_decay": "stage2_weight_decay",
    "per_device_train_batch_size": "stage2_per_device_train_batch_size",
    "lr_scheduler_type": "stage2_lr_scheduler_type",
    "lr_decay_epochs": "stage2_lr_decay_epochs",
    "metric_for_best_model": "stage2_metric_for_best_model",
}
# Metrics on VAL of which less is better, by the beginnings of their names.
ERROR_METRICS = ("mse", "mae", "balanced_mae")


@dataclass
class DataArguments:
    """Which videos to train on, and how clips are taken from them.

    Args:
        data_dir: Folder in EchoNet-Dynamic's layout; unset for a training on simulated videos.
        require_tracings: Drop videos without volume tracings, as the paper did with five of them.
        validate_data: Look for bad videos before training: `headers` opens every file, `frames` decodes it, `none`.
        crop_padding: Largest random shift of a training clip in pixels of the model's input.
        eval_protocol: Clips per video on VAL, see `protocol_starts`.
        statistics_videos: Training videos from which the mean and standard deviation of pixels are measured.
        frame_cache: Folder for decoded frames (22 GB for EchoNet-Dynamic at 112 pixels); unset decodes every epoch.
        interval_coverage: Share of the patients of every category that the final model's prediction intervals are to
            hold; they are calibrated on VAL, with the protocol `windows`. 0 leaves that out.
        decoder: What decodes the training and validation videos: `pyav`, or `simplejpeg`, which is faster for
            Motion JPEG in AVI.
    """

    data_dir: str | None = field(
        default=None, metadata={"help": "Folder with FileList.csv and Videos/ in EchoNet-Dynamic's layout."}
    )
    require_tracings: bool = field(default=False, metadata={"help": "Drop videos without volume tracings."})
    validate_data: str = field(
        default="headers",
        metadata={"help": "How to look for bad videos before training.", "choices": ["headers", "frames", "none"]},
    )
    crop_padding: int = field(default=12, metadata={"help": "Largest random shift of a training clip in pixels."})
    eval_protocol: str = field(default="center", metadata={"help": "Clips per video on VAL during training."})
    statistics_videos: int = field(default=128, metadata={"help": "Videos that the pixel statistics come from."})
    frame_cache: str | None = field(
        default=None, metadata={"help": "Folder for decoded frames; unset decodes videos in every epoch."}
    )
    interval_coverage: float = field(
        default=0.9, metadata={"help": "Coverage of prediction intervals, calibrated on VAL; 0 leaves them out."}
    )
    decoder: str = field(
        default="pyav", metadata={"help": "What decodes videos that are not DICOM.", "choices": list(DECODERS)}
    )


@dataclass
class SimulationArguments:
    """Videos to simulate in place of a data set; no clip is shown twice.

    Args:
        simulated_videos: Videos per epoch; 0 trains on the data set in `data_dir`.
        simulated_val_videos: Videos of the validation split, the same in every epoch.
        simulation_profile: Ranges of patients and machines, see `echomen_hf.simulation.get_profile`.
        simulated_distribution: Distribution of the ejection fractions, see `ejection_fraction_at`.
        still_share: Share of the training videos that are one picture shown all the time, with an EF of 0.
        mirrored_share: Share of the videos in which left and right are exchanged.
        reversed_share: Share of the videos that run backwards.
        brightness_factor: Largest number by which the gray values of a video are multiplied or divided.
    """

    simulated_videos: int = field(default=0, metadata={"help": "Videos that an epoch simulates; 0 for a data set."})
    simulated_val_videos: int = field(default=400, metadata={"help": "Simulated videos of the validation split."})
    simulation_profile: str = field(default="wide", metadata={"help": "Ranges of simulated patients and machines."})
    simulated_distribution: str = field(
        default="uniform",
        metadata={"help": "Distribution of simulated EF.", "choices": ["uniform", "categories", "echonet"]},
    )
    still_share: float = field(default=0.0, metadata={"help": "Share of simulated training videos without motion."})
    mirrored_share: float = field(default=0.0, metadata={"help": "Share of simulated videos shown mirrored."})
    reversed_share: float = field(default=0.0, metadata={"help": "Share of simulated videos shown backwards."})
    brightness_factor: float = field(
        default=1.0, metadata={"help": "Gray values of simulated videos are multiplied or divided by at most this."}
    )


@dataclass
class ModelArguments:
    """Which model to train, and from which weights.

    Args:
        model: Folder or Hub id of an EchoMEN model to continue from.
        model_config: Fields of `EchoMENConfig` for a new model, as a mapping in a recipe or JSON on the command line.
        backbone_checkpoint: R(2+1)D weights for the encoder of a new model, in torchvision's names.
    """

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a model to continue from."})
    model_config: dict | str | None = field(default=None, metadata={"help": "EchoMENConfig fields of a new model."})
    backbone_checkpoint: str | None = field(default=None, metadata={"help": "R(2+1)D weights of a new model."})

    def __post_init__(self) -> None:
        """Read a configuration given as JSON and reject contradictions."""
        if isinstance(self.model_config, str):
            try:
                self.model_config = json.loads(self.model_config)
            except json.JSONDecodeError as error:
                raise ValueError(f"`model_config` is not valid JSON ({error}): {self.model_config}") from error
        if self.model is not None and (self.model_config is not None or self.backbone_checkpoint is not None):
            raise ValueError(
                "`model` continues from a whole model; leave out `model_config` and `backbone_checkpoint`, which make "
                "a new one."
            )


@dataclass
class EchoMENTrainingArguments(TrainingArguments):
    """Arguments of both training stages.

    The defaults are the paper's (section 3.2): plain SGD with momentum, learning rate 1e-4 times 0.1 every 10 epochs,
    batch 20, 40 epochs of stage 1 and 20 of stage 2. Ordinary arguments rule both stages; a `stage2_` argument that is
    set rules stage 2 instead.

    Args:
        stage: 1 (contrastive and regression), 2 (experts and aggregator), or `both`, which `fit` runs one after the
            other and a single trainer cannot.
        contrastive_weight: Factor lambda on the contrastive loss of stage 1.
        contrastive_temperature: Temperature tau of the contrastive loss.
        positive_bin_width: Width in EF points of the label bins that make samples positives of each other; 0 leaves
            only the other views of the same sample.
        label_distance: Label distance d_ij of equation 2: `l1`, `l2`, `cdf`, or `none` for plain SupCon (ablation a).
        label_distance_scale: Factor on the label distance.
        num_views: Random crops of each training clip in stage 1.
        expert_bin_width: Width in EF points of the label bins that weigh the samples of stage 2 (equation 4).
        expert_min_count: Smallest count used for a bin; unset means 1 % of the training set, 1 the paper to the
            letter.
        aggregator_gradients: `detached` keeps the aggregator's loss from changing the experts, `joint` lets it.
        aggregator_weight_exponent: p of the weights w = f^-p that the samples have in the aggregator's loss. 0 is the
            paper, whose squared error over all samples is least where mostly the expert of the many is believed.
        expert_solver: `gradient` trains the experts; `least_squares` gives them, from the embeddings of
            `embedding_draws`, the weights that this converges to, and trains the aggregator alone.
        aggregator_learning_rate_factor: Factor on the learning rate of the aggregator in stage 2. A large rate, which
            suits linear experts on few data, lets its softmax settle on one expert before the experts have converged.
        embedding_draws: Random clips per video whose embeddings are computed once, before stage 2, for its
            epochs to show in turn; with as many draws as epochs the training is that on videos. 0 runs every clip
            through the fixed encoder when it is needed.
        lr_decay_epochs: Epochs between two decays of a constant learning rate; 0 never decays it.
        lr_decay_factor: What the learning rate is multiplied by then.
        channels_last: Lay activations out channels last, which convolutions on CPUs (and tensor cores) prefer. Sums
            are then taken in another order, so results differ in the last digits.
        keep_large_blocks: Let the process that trains keep freed memory for its next allocation, which saves time on
            Linux CPUs and changes no number; see `echomen_hf.training.allocator.keep_large_blocks`.
        early_stopping_patience: Epochs without improvement on VAL after which a stage ends; unset runs to the end.
        stage2_num_train_epochs: Epochs of stage 2.
        stage2_learning_rate: Learning rate of stage 2.
        stage2_optim: Optimiser of stage 2.
        stage2_optim_args: Optimiser options of stage 2.
        stage2_weight_decay: Weight decay of stage 2.
        stage2_per_device_train_batch_size: Batch size per process of stage 2.
        stage2_lr_scheduler_type: Learning rate schedule of stage 2.
        stage2_lr_decay_epochs: Epochs between two decays in stage 2.
        stage2_metric_for_best_model: Metric on VAL by which stage 2 keeps an epoch, such as `balanced_mae`; unset
            means `mae`, as in the paper.
    """

    # Fields of transformers that differ here, in their defaults or, as the first, in a second name on command lines.
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for checkpoints, logs and the model.", "aliases": ["--output"]}
    )
    num_train_epochs: float = field(default=40, metadata={"help": "Epochs of stage 1."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Initial learning rate."})
    optim: str = field(default="sgd", metadata={"help": "Optimiser, by its name in transformers."})
    optim_args: str | None = field(default=None, metadata={"help": "Optimiser options; SGD's is momentum=0.9."})
    weight_decay: float = field(default=1e-4, metadata={"help": "Weight decay, not on biases and normalisation."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule besides the decay per epochs."})
    per_device_train_batch_size: int = field(default=20, metadata={"help": "Videos per process and step."})
    per_device_eval_batch_size: int = field(default=20, metadata={"help": "Clips per process and step on VAL."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0 is off, as in the paper."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on VAL."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept besides the best one."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Keep the best epoch on VAL."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two log lines."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Every trained parameter is used in every step, so the search is not needed."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Data sets here make their own columns."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Let a resumed run count its epochs without improvement on."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of initial weights, order of videos, clips and crops."})

    stage: str = field(default="1", metadata={"help": "Training stage: 1, 2 or both.", "choices": ["1", "2", "both"]})
    contrastive_weight: float = field(default=0.5, metadata={"help": "Lambda, factor on the contrastive loss."})
    contrastive_temperature: float = field(default=0.1, metadata={"help": "Temperature of the contrastive loss."})
    positive_bin_width: float = field(
        default=1.0, metadata={"help": "EF points within which samples are positives; 0: only views of one clip."}
    )
    label_distance: str = field(
        default="l1",
        metadata={"help": "Label distance of the contrastive loss.", "choices": ["l1", "l2", "cdf", "none"]},
    )
    label_distance_scale: float = field(default=1.0, metadata={"help": "Factor on the label distance."})
    num_views: int = field(default=2, metadata={"help": "Random crops of each training clip in stage 1."})
    expert_bin_width: float = field(default=1.0, metadata={"help": "EF points per bin of the sample weights."})
    expert_min_count: float | None = field(
        default=None, metadata={"help": "Smallest bin count; unset: 1 %% of the training set."}
    )
    aggregator_gradients: str = field(
        default="detached",
        metadata={"help": "Whether the aggregator's loss changes the experts.", "choices": ["detached", "joint"]},
    )
    aggregator_weight_exponent: float = field(
        default=0.0, metadata={"help": "Exponent p of the weights f^-p of the samples in the aggregator's loss."}
    )
    expert_solver: str = field(
        default="gradient",
        metadata={"help": "How experts are found.", "choices": ["gradient", "least_squares"]},
    )
    aggregator_learning_rate_factor: float = field(
        default=1.0, metadata={"help": "Factor on the learning rate of the aggregator."}
    )
    embedding_draws: int = field(
        default=0, metadata={"help": "Clips per video that stage 2 embeds once and trains on; 0: encode every epoch."}
    )
    lr_decay_epochs: float = field(default=10, metadata={"help": "Epochs between two decays; 0: none."})
    lr_decay_factor: float = field(default=0.1, metadata={"help": "Factor of a decay."})
    channels_last: bool = field(
        default=False, metadata={"help": "Lay activations out channels last, which convolutions on CPUs prefer."}
    )
    keep_large_blocks: bool = field(
        default=False,
        metadata={"help": "Keep freed memory for the next allocation: faster on Linux CPUs, same numbers."},
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Epochs without improvement on VAL before a stage ends."}
    )

    stage2_num_train_epochs: float | None = field(default=20, metadata={"help": "Epochs of stage 2."})
    stage2_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of stage 2."})
    stage2_optim: str | None = field(default=None, metadata={"help": "Optimiser of stage 2."})
    stage2_optim_args: str | None = field(default=None, metadata={"help": "Optimiser options of stage 2."})
    stage2_weight_decay: float | None = field(default=None, metadata={"help": "Weight decay of stage 2."})
    stage2_per_device_train_batch_size: int | None = field(default=None, metadata={"help": "Batch size of stage 2."})
    stage2_lr_scheduler_type: str | None = field(default=None, metadata={"help": "Schedule of stage 2."})
    stage2_lr_decay_epochs: float | None = field(default=None, metadata={"help": "Epochs between decays in stage 2."})
    stage2_metric_for_best_model: str | None = field(
        default=None, metadata={"help": "Metric on VAL by which stage 2 keeps an epoch; unset: mae."}
    )

    def __post_init__(self) -> None:
        """Fill in what depends on the stage and check the values that transformers does not know."""
        self.stage = str(self.stage)
        if self.stage not in ("1", "2", "both"):
            raise ValueError(f"`stage` must be 1, 2 or both, got {self.stage!r}.")
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
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False
        super().__post_init__()
        positive = (
            "aggregator_learning_rate_factor",
            "contrastive_temperature",
            "expert_bin_width",
            "lr_decay_factor",
            "num_views",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        not_negative = (
            "aggregator_weight_exponent",
            "contrastive_weight",
            "embedding_draws",
            "label_distance_scale",
            "lr_decay_epochs",
            "positive_bin_width",
        )
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("`early_stopping_patience` compares epochs on VAL: set `load_best_model_at_end`.")
        if self.label_distance not in ("l1", "l2", "cdf", "none"):
            raise ValueError(f"`label_distance` must be l1, l2, cdf or none, got {self.label_distance!r}.")
        if self.expert_solver not in ("gradient", "least_squares"):
            raise ValueError(f"`expert_solver` must be gradient or least_squares, got {self.expert_solver!r}.")
        if self.aggregator_gradients not in ("detached", "joint"):
            raise ValueError(f"`aggregator_gradients` must be detached or joint, got {self.aggregator_gradients!r}.")

    @property
    def stages(self) -> tuple[int, ...]:
        """Numbers of the stages to run, in order."""
        return (1, 2) if self.stage == "both" else (int(self.stage),)

    @property
    def chosen_metric(self) -> str | None:
        """Metric that the user chose to select epochs by; `None` leaves the choice to each stage."""
        return None if self._chooses_metric else self.metric_for_best_model

    def for_stage(self, stage: int, output_dir: str) -> EchoMENTrainingArguments:
        """Make the arguments of one stage.

        Args:
            stage: 1 or 2.
            output_dir: Folder for the checkpoints of that stage.

        Returns:
            A copy with that stage's values under the ordinary names.
        """
        changes: dict[str, Any] = {"stage": str(stage), "output_dir": output_dir}
        if self.run_name is not None:
            changes["run_name"] = f"{self.run_name}-stage{stage}"  # a tracker would append one stage to the other
        if stage == 2:
            given = {name: getattr(self, own) for name, own in STAGE_2_FIELDS.items()}
            changes.update({name: value for name, value in given.items() if value is not None})
            if "optim" in changes and "optim_args" not in changes:
                changes["optim_args"] = None
            if "metric_for_best_model" in changes:
                changes["greater_is_better"] = None
        return self.replace(**changes)

    def replace(self, **changes: Any) -> EchoMENTrainingArguments:
        """Copy the arguments with some of them changed.

        Args:
            changes: New values by name.

        Returns:
            The copy; fields that are derived from others are derived anew.
        """
        # dataclasses.replace cannot be used: fields that are derived from others would come back as if given.
        clone = copy.copy(self)
        for name, value in changes.items():
            setattr(clone, name, value)
        if self._chooses_metric and "metric_for_best_model" not in changes:
            clone.metric_for_best_model, clone.greater_is_better = None, None
        clone.__post_init__()
        return clone
