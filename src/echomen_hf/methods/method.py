"""Description of a method: a model, a loss, a trainer and defaults under a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from transformers import PreTrainedConfig, PreTrainedModel

from ..data.clip_dataset import TrainingClips
from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import EchoMENModel, EchoMENPreTrainedModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..training import EchoMENTrainer, EchoMENTrainingArguments
from .method_trainer import MethodLoss, MethodTrainer


__all__ = ["ECHONET_SCHEDULE", "Method", "MethodGroup", "trained_parameter_count"]

MethodGroup = Literal["paper", "rival", "newer", "ablation", "encoder"]
"""EchoMEN itself, a row of the paper's Table 1, a method published since or beside it, a row of Table 2, or EchoMEN on
another encoder."""

ECHONET_SCHEDULE = {
    "num_train_epochs": 45,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "lr_decay_epochs": 15,
    "lr_decay_factor": 0.1,
    "weight_decay": 1e-4,
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": 20,
}
"""45 epochs of SGD at 1e-4, times 0.1 every 15; also for methods that were never published on EchoNet-Dynamic."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method that can be trained and compared with the others.

    The defaults are those of a rival with EchoMEN's encoder and one linear head, trained in one stage on one view.

    Args:
        name: Name in results and on command lines.
        title: Name in tables and figures.
        source: Publication that it is built from, and decisions where that leaves things open.
        group: Table that it belongs to.
        loss: Class of the loss of stage 1; its keyword arguments are the method's options. `None` if the trainer has
            the loss itself.
        trainer_class: Class of the trainer. Given a `loss`, it must take the argument `loss`, as `MethodTrainer` does.
        model_class: Class of the model. Another architecture than EchoMEN's returns `single_prediction`.
        processor_class: Class of the video processor, with `for_model(config)`.
        training_clips: Class of the training clips.
        model_defaults: Configuration fields that define the method; they replace those of a recipe.
        training_defaults: Training arguments that define the method, likewise.
        published_training: Training arguments of the publication on EchoNet-Dynamic, for a comparison in which every
            method has its own published schedule.
        stage_1_of: Name of the method with the same stage 1, from whose result a run may start.
        encoder: Type of the video model that replaces EchoMEN's encoder, as in `EchoMENConfig.encoder_config`.
    """

    name: str
    title: str
    source: str
    group: MethodGroup
    loss: Callable[..., MethodLoss] | None = MethodLoss
    trainer_class: type[EchoMENTrainer] = MethodTrainer
    model_class: type[PreTrainedModel] = EchoMENModel
    processor_class: type[EchoMENVideoProcessor] = EchoMENVideoProcessor
    training_clips: type[TrainingClips] = TrainingClips
    model_defaults: Mapping[str, Any] = field(default_factory=dict)
    training_defaults: Mapping[str, Any] = field(default_factory=lambda: {"stage": "1", "num_views": 1})
    published_training: Mapping[str, Any] = field(default_factory=lambda: ECHONET_SCHEDULE)
    stage_1_of: str | None = None
    encoder: str | None = None

    @property
    def shares_encoder(self) -> bool:
        """Whether the model has EchoMEN's encoder, and not a network and configuration of its own."""
        return self.encoder is None and issubclass(self.model_class, EchoMENPreTrainedModel)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the loss and their defaults."""
        if self.loss is None:
            return {}
        parameters = inspect.signature(self.loss).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def make_config(self, model_config: Mapping[str, Any] | None = None) -> PreTrainedConfig:
        """Make the configuration of a model.

        Args:
            model_config: Configuration fields; those of `model_defaults` are replaced. A model with EchoMEN's encoder
                takes a recipe's, and leaves those of heads that it does not have; another network takes its own.
        """
        config_class: Any = self.model_class.config_class
        given = dict(model_config or {})
        if self.shares_encoder:
            of_other_heads = set(EchoMENConfig.own_fields()) - {f.name for f in fields(config_class)}
            given = {name: value for name, value in given.items() if name not in of_other_heads}
        if self.encoder is not None:
            given["encoder_config"] = {**given.get("encoder_config", {}), "model_type": self.encoder}
        return config_class(**{**given, **self.model_defaults})

    def make_trainer(self, options: Mapping[str, Any] | None = None) -> Callable[..., EchoMENTrainer]:
        """Bind the loss, with the given options, to the trainer's class.

        Raises:
            ValueError: If there is no such option.
        """
        given = dict(options or {})
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "none: its settings are training arguments"
            raise ValueError(f"Method {self.name!r} has no option {', '.join(unknown)}; its options are {known}.")
        if self.loss is None:
            return self.trainer_class
        return partial(self.trainer_class, loss=partial(self.loss, **given))

    def training_arguments(
        self, args: EchoMENTrainingArguments, *, published_schedule: bool = False
    ) -> EchoMENTrainingArguments:
        """Adapt the arguments of a comparison to this method.

        Every method's final model is chosen on VAL by one metric, that of EchoMEN's last stage: a method of a single
        stage takes `stage2_metric_for_best_model`, or `mae` if that is unset, unless `metric_for_best_model` was given
        or stage 1 is that of another method.

        Args:
            args: Arguments that all methods share.
            published_schedule: Whether `published_training` replaces the shared arguments.
        """
        changes = {"stage": "both", **self.training_defaults}
        if published_schedule:
            changes.update(self.published_training)
        is_single_stage = changes["stage"] == "1" and self.stage_1_of is None
        if is_single_stage and args.chosen_metric is None and args.load_best_model_at_end:
            changes |= {
                "metric_for_best_model": args.stage2_metric_for_best_model or "mae",
                "greater_is_better": None,
            }
        return args.replace(**changes)


def trained_parameter_count(method: Method, model: PreTrainedModel) -> int:
    """Count the parameters that a method trains in any of its stages.

    An EchoMEN model has heads that a method may not train: experts and aggregator in a method of one stage, the
    projector without a contrastive loss on it, the aggregator of a mean of experts.
    """
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not _is_idle(name, method, model))


def _is_idle(name: str, method: Method, model: PreTrainedModel) -> bool:
    if not isinstance(model, EchoMENModel):
        return False
    uses_experts = getattr(method.loss, "uses_experts", False)
    is_without = method.training_defaults.get("stage", "both") == "1" and not uses_experts
    idle = {
        "projector": method.loss is not None and not getattr(method.loss, "uses_projection", False),
        "regression_head": uses_experts,
        "experts": is_without,
        "aggregator": is_without or model.config.expert_aggregation != "aggregator",
    }
    return idle.get(name.split(".")[0], False)
