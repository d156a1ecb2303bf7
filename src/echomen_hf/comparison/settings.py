"""Settings that all cells of a comparison share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from ..data import read_data_set
from ..data.layouts.registry import DataSet
from ..methods import Method, get_method
from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import make_encoder
from ..training import DataArguments, EchoMENTrainingArguments, ModelArguments
from ..training.encoder_training import require_part
from ..training.recipes import parse_recipe, read_recipe
from .variants import Variant


__all__ = ["ComparisonSettings", "MethodArguments", "Schedule", "read_settings"]

Schedule = Literal["equal", "published"]

NOT_READ = {
    "embeddings": "it trains encoders, and `echomen train` trains heads on vectors",
    "encoder": "give a method `echomen_...` on that encoder, and its configuration as `method_model_config`",
    "interval_coverage": "its cells have no intervals",
    "model": "every method begins with new weights; give the encoder's as `backbone_checkpoint`",
    "output_dir": "give `--output`",
    "run_name": "the folder of a cell names it",
    "seed": "give `--seeds`",
    "stage": "each method has its own stages",
}
"""Settings of `echomen train` that a comparison does not read, and why or what to do instead."""


@dataclass
class MethodArguments:
    """Settings of single methods, by name. The defaults of networks other than EchoMEN's are the published sizes."""

    method_options: dict | str | None = field(
        default=None, metadata={"help": "Options of the methods' losses, by method."}
    )
    method_model_config: dict | str | None = field(
        default=None, metadata={"help": "Configuration fields of other architectures, by method."}
    )

    def __post_init__(self) -> None:
        """Parse mappings given as JSON, and check the names of the methods."""
        for name in ("method_options", "method_model_config"):
            value = getattr(self, name)
            try:
                value = json.loads(value) if isinstance(value, str) else value or {}
            except json.JSONDecodeError as error:
                raise ValueError(f"`{name}` is not valid JSON ({error}): {value}") from error
            if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
                raise ValueError(f"`{name}` must map names of methods to mappings, got {value!r}.")
            for method in value:
                get_method(method)
            setattr(self, name, value)


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings that all cells of a comparison share.

    Args:
        data: Data set, and how clips are taken from it.
        training: Training arguments. Output folder, seed and method are set per cell.
        model_config: Configuration fields of EchoMEN's network.
        backbone_checkpoint: Pre-trained weights of the encoder.
        method_options: Options of methods' losses by method, see `Method.options`.
        method_model_config: Configuration fields by method, for networks other than EchoMEN's.
        protocol: Clips per video on TEST, see `protocol_starts`.
        schedule: `equal` (all encoders take the same number of steps) or `published`.
        bootstrap_samples: Number of bootstrap resamples for intervals and p-values.
    """

    data: DataArguments
    training: EchoMENTrainingArguments
    model_config: Mapping[str, Any]
    backbone_checkpoint: str | None = None
    method_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    method_model_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    protocol: str = "windows"
    schedule: Schedule = "equal"
    bootstrap_samples: int = 2000

    @property
    def data_dir(self) -> Path:
        """Folder of the data set."""
        return Path(str(self.data.data_dir))

    def read_data_set(self) -> DataSet:
        """Read the rows of the data set."""
        return read_data_set(self.data_dir, **self.data.layout_options)

    def model_fields(self, method: Method) -> dict[str, Any]:
        """Configuration fields of a method's network: those of EchoMEN, or its own for another network."""
        if method.shares_encoder:
            return dict(self.model_config)
        return dict(self.method_model_config.get(method.name, {}))

    def options(self, method: Method) -> dict[str, Any]:
        """Options of a method that differ from its defaults."""
        return dict(self.method_options.get(method.name, {}))

    def training_arguments(self, method: Method) -> EchoMENTrainingArguments:
        """Training arguments of a method with this schedule, but for the seed and the folder."""
        return method.training_arguments(self.training, published_schedule=self.schedule == "published")

    def check(self, variants: Sequence[Variant]) -> list[PreTrainedConfig]:
        """Check all options and configurations before any training, and return the variants' configurations."""
        shared = sorted(name for name in self.method_model_config if get_method(name).shares_encoder)
        if shared:
            raise ValueError(
                f"`method_model_config` is for networks of other architectures; {', '.join(shared)} must have the "
                "encoder of all others: change `model_config`."
            )
        for name, options in self.method_options.items():
            get_method(name).make_trainer(options)
        if self.bootstrap_samples < 0:
            raise ValueError(f"`--bootstrap_samples` must not be negative, got {self.bootstrap_samples}.")
        configs = [variant.method.make_config(self.model_fields(variant.method)) for variant in variants]
        with torch.device("meta"):
            for config in configs:
                if isinstance(config, EchoMENConfig):
                    require_part(make_encoder(config), self.training.train_encoder)
        return configs


def read_settings(recipe: str | Path | None, flags: Sequence[str], **choices: Any) -> ComparisonSettings:
    """Read the settings of a comparison from a recipe and flags. Flags override the recipe.

    Args:
        recipe: YAML or JSON file with settings of `echomen train` and of `MethodArguments`.
        flags: Flags of these settings.
        choices: Fields of `ComparisonSettings` that the recipe does not hold, such as `protocol`.

    Returns:
        The settings.

    Raises:
        FileNotFoundError: If there is no such recipe.
        ValueError: If the recipe or a flag sets an unknown field or one that the comparison sets per cell, or if
            there is no data set.
    """
    classes = (DataArguments, ModelArguments, EchoMENTrainingArguments, MethodArguments)
    known = {name for kind in classes for name in kind.__dataclass_fields__}
    given = set(read_recipe(recipe, known)) if recipe is not None else set()
    given |= {flag.removeprefix("--").split("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")}
    abbreviated = tuple(given - known)
    for name, remedy in NOT_READ.items():
        if name in given or any(name.startswith(flag) for flag in abbreviated):
            raise ValueError(f"A comparison does not read `{name}`: {remedy}.")
    if flags and not flags[0].startswith("-"):
        raise ValueError(f"Unknown argument {flags[0]}. Give the recipe as `--recipe`.")
    data, model, training, methods = parse_recipe(
        classes, [*([str(recipe)] if recipe is not None else []), *flags], {"stage": "both", "disable_tqdm": True}
    )
    if data.data_dir is None:
        raise ValueError("A comparison needs a data set: give `--data_dir`.")
    return ComparisonSettings(
        data=data,
        training=training,
        model_config=dict(model.model_config or {}),
        backbone_checkpoint=model.backbone_checkpoint,
        method_options=methods.method_options,
        method_model_config=methods.method_model_config,
        **choices,
    )
