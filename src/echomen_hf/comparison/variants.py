"""What is compared: registered methods, and EchoMEN with one option changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast, get_args

from ..methods import Method, MethodGroup, get_method, list_methods
from ..model.configuration_echomen import EchoMENConfig
from ..training import EchoMENTrainingArguments


__all__ = ["REFERENCE_METHOD", "SWEEPS", "Sweep", "Variant", "make_sweep", "select_methods"]

REFERENCE_METHOD = "echomen"
"""The method that all others are tested against, and whose options are swept."""


@dataclass(frozen=True)
class Sweep:
    """An option of EchoMEN and the values that it is given.

    Args:
        title: What the option is called in tables.
        field: Its name, a field of `EchoMENConfig` or a training argument.
        values: Values.
        changes: What depends on the option: `stage_1` (a whole training per value), `stage_2` (EchoMEN's stage 1 is
            shared) or `prediction` (EchoMEN's finished model is evaluated).
    """

    title: str
    field: str
    values: tuple[Any, ...]
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
"""Sweeps by the name that command lines use."""


@dataclass(frozen=True)
class Variant:
    """A method as it is compared.

    Args:
        method: The method; that of a variant of EchoMEN has the changed option among its defaults.
        changed_field: Option of EchoMEN that differs; `None` for a registered method.
        value: Value of that option.
        is_trained: Whether it has a training of its own, and not EchoMEN's finished model.
    """

    method: Method
    changed_field: str | None = None
    value: Any = None
    is_trained: bool = True

    @property
    def name(self) -> str:
        """Name in results and folders."""
        return self.method.name

    @property
    def needs(self) -> str | None:
        """Name of the method whose training, for the same seed, this one builds on; `None` if it does not."""
        return self.method.stage_1_of if self.is_trained else REFERENCE_METHOD

    @property
    def is_required(self) -> bool:
        """Whether it cannot be computed without what it `needs`; others then train their stage 1 themselves."""
        return not self.is_trained


def select_methods(names: Sequence[str]) -> list[Variant]:
    """Look up methods by name or by group.

    Args:
        names: Names of methods, names of groups, or `all`; each may hold several, separated by commas.

    Returns:
        Each method once, in the order of tables.

    Raises:
        ValueError: If there is no such method or group; the message lists those that exist.
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
    """Make EchoMEN's variants of a sweep.

    Args:
        name: Name of the sweep, see `SWEEPS`.
        args: Training arguments that all methods share.
        model_config: Configuration fields that all methods share.

    Returns:
        A variant per value, in the order of values. The value that the shared settings have is EchoMEN itself; one
        that is a registered ablation is that ablation.

    Raises:
        ValueError: If there is no such sweep; the message lists those that exist.
    """
    if name not in SWEEPS:
        close = get_close_matches(name, SWEEPS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no sweep {name!r}.{hint} Sweeps: {', '.join(SWEEPS)}.")
    sweep = SWEEPS[name]
    config = EchoMENConfig(**model_config)
    present = getattr(config, sweep.field) if sweep.is_of_model else getattr(args, sweep.field)
    if sweep.field == "expert_top_k":
        # Without routing every expert is consulted.
        present = config.num_experts if present is None else present
        values = [*(value for value in sweep.values if value < config.num_experts), config.num_experts]
    else:
        values = list(sweep.values) if present in sweep.values else [*sweep.values, present]
    if all(isinstance(value, (int, float)) for value in values):
        values = sorted(set(values))
    return [make_variant(sweep, value, is_present=value == present) for value in values]


def make_variant(sweep: Sweep, value: Any, *, is_present: bool) -> Variant:
    """Make EchoMEN with one option changed.

    Args:
        sweep: The option.
        value: Its value.
        is_present: Whether EchoMEN itself has that value.

    Returns:
        The variant.
    """
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
