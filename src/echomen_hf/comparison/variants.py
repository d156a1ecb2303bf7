"""Compared variants: registered methods, and EchoMEN with one option changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast, get_args

from ..methods import Method, MethodGroup, get_method, list_methods
from ..model.configuration_echomen import EchoMENConfig
from ..training import EchoMENTrainingArguments


__all__ = ["REFERENCE_METHOD", "SWEEPS", "Variant", "make_sweep", "select_methods"]

REFERENCE_METHOD = "echomen"
"""Method that all others are tested against, and whose options the sweeps change."""


@dataclass(frozen=True)
class Sweep:
    """An option of EchoMEN and its values in a sweep."""

    title: str
    field: str  # of `EchoMENConfig` or of the training arguments
    values: tuple[Any, ...]
    # `stage_1`: a whole training per value; `stage_2`: EchoMEN's stage 1 is shared; `prediction`: no training.
    changes: str

    @property
    def is_of_model(self) -> bool:
        """Whether the option is a field of the model's configuration."""
        return self.field in EchoMENConfig.own_fields()


SWEEPS = {
    "experts": Sweep("experts M", "num_experts", (1, 2, 3, 5), "stage_2"),
    "lambda": Sweep("lambda", "contrastive_weight", (0.0, 0.1, 0.5, 1.0, 5.0), "stage_1"),
    "distance": Sweep("label distance", "label_distance", ("none", "l1", "l2", "cdf"), "stage_1"),
    "distance_scale": Sweep("label distance scale", "label_distance_scale", (0.1, 1.0, 10.0), "stage_1"),
    "temperature": Sweep("temperature", "contrastive_temperature", (0.05, 0.1, 0.2, 0.5), "stage_1"),
    "aggregator": Sweep("aggregator gradients", "aggregator_gradients", ("detached", "joint"), "stage_2"),
    "aggregator_weight": Sweep(
        "exponent of the aggregator's weights", "aggregator_weight_exponent", (0.0, 0.5, 1.0), "stage_2"
    ),
    "top_k": Sweep("routing, top k", "expert_top_k", (1, 2), "prediction"),
}
"""Sweeps by the name on the command line."""


@dataclass(frozen=True)
class Variant:
    """A registered method, or EchoMEN with one option changed."""

    method: Method
    changed_field: str | None = None  # `None` for a registered method
    value: Any = None
    is_trained: bool = True  # False: the finished EchoMEN is evaluated

    @property
    def name(self) -> str:
        """Name in results and folders."""
        return self.method.name

    @property
    def needs(self) -> str | None:
        """Name of the method whose training with the same seed this one builds on, or `None`."""
        return self.method.stage_1_of if self.is_trained else REFERENCE_METHOD


def select_methods(names: Sequence[str]) -> list[Variant]:
    """Look up methods by name or by group.

    Args:
        names: Names of methods, names of groups, or `all`. Each may hold several, separated by commas.

    Returns:
        Each method once, in the order of tables.

    Raises:
        ValueError: If there is no such method or group. The message lists those that exist.
    """
    known, groups = list_methods(), get_args(MethodGroup)
    chosen: set[str] = set()
    for name in (part.strip() for text in names for part in text.split(",")):
        if name == "all":
            chosen.update(known)
        elif name in groups:
            chosen.update(list_methods(cast(MethodGroup, name)))
        elif name in known:
            chosen.add(name)
        else:
            close = get_close_matches(name, [*known, *groups], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"There is no method {name!r}.{hint} Methods: {', '.join(known)}; groups: all, {', '.join(groups)}."
            )
    return [Variant(get_method(name)) for name in known if name in chosen]


def make_sweep(name: str, args: EchoMENTrainingArguments, model_config: dict[str, Any]) -> list[Variant]:
    """Make one variant per value. The current value is EchoMEN itself, and a registered ablation stays one."""
    if name not in SWEEPS:
        close = get_close_matches(name, SWEEPS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no sweep {name!r}.{hint} Sweeps: {', '.join(SWEEPS)}.")
    sweep = SWEEPS[name]
    config = EchoMENConfig(**model_config)
    present = getattr(config, sweep.field) if sweep.is_of_model else getattr(args, sweep.field)
    if sweep.field == "expert_top_k":
        # Without routing, all experts are used.
        present = config.num_experts if present is None else present
        values = [*(value for value in sweep.values if value < config.num_experts), config.num_experts]
    else:
        values = list(sweep.values) if present in sweep.values else [*sweep.values, present]
    if all(isinstance(value, (int, float)) for value in values):
        values = sorted(set(values))
    return [make_variant(sweep, value, is_present=value == present) for value in values]


def make_variant(sweep: Sweep, value: Any, *, is_present: bool) -> Variant:
    """EchoMEN with one option changed, or EchoMEN itself if that value is the current one."""
    reference = get_method(REFERENCE_METHOD)
    if is_present:
        return Variant(reference, sweep.field, value)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    defaults = "model_defaults" if sweep.is_of_model else "training_defaults"
    changes: dict[str, Any] = {defaults: {**getattr(reference, defaults), sweep.field: value}}
    if sweep.changes == "stage_2":
        changes["stage_1_of"] = REFERENCE_METHOD
    method = replace(
        reference,
        name=f"{reference.name}_{sweep.field}_{shown}",
        title=f"{reference.title}, {sweep.title} = {shown}",
        source=f"EchoMEN with `{sweep.field}` = {shown}.",
        group="ablation",
        **changes,
    )
    for name in list_methods("ablation"):
        registered = get_method(name)
        if replace(registered, name=method.name, title=method.title, source=method.source) == method:
            return Variant(registered, sweep.field, value)
    return Variant(method, sweep.field, value, is_trained=sweep.changes != "prediction")
