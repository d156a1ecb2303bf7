"""Parsing of command lines that may begin with a recipe, a file of settings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..runs.private_text import hide_parents_of


__all__ = ["RECIPES_FOLDER", "parse_recipe", "read_recipe"]

RECIPES_FOLDER = Path(__file__).parent.parent / "recipes"
"""Recipes that come with the package."""

EXCLUDED = {
    "model": ("model_config", "backbone_checkpoint", "encoder"),
    "model_config": ("model",),
    "backbone_checkpoint": ("model", "encoder"),
    "encoder": ("model", "backbone_checkpoint"),
    "total_train_batch_size": ("per_device_train_batch_size",),
    "per_device_train_batch_size": ("total_train_batch_size",),
}
"""Settings that cannot go together with another."""


def parse_recipe(
    dataclass_types: Sequence[type],
    arguments: Sequence[str] | None = None,
    defaults: dict[str, Any] | None = None,
    prog: str | None = None,
    description: str | None = None,
) -> tuple[Any, ...]:
    """Parse flags, or the path of a recipe followed by flags that override it, into one object per dataclass.

    `--model` also overrides the recipe's settings of a new model, and those override its `model`; likewise the batch
    of a process and that of all.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = HfArgumentParser(
        tuple(dataclass_types),
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    settings = dict(defaults or {})
    if arguments and not arguments[0].startswith("-"):
        known = {field.name for dataclass_type in dataclass_types for field in fields(dataclass_type) if field.init}
        recipe = read_recipe(arguments.pop(0), known)
        options = {argument.split("=")[0] for argument in arguments}
        given = {action.dest for action in parser._actions if options & set(action.option_strings)}
        # A flag overrides the recipe, so it also overrides what cannot go together with it.
        for name in {name for flag in given for name in EXCLUDED.get(flag, ())} - given:
            recipe.pop(name, None)
        settings.update(recipe)
    parser.set_defaults(**settings)
    for action in parser._actions:
        action.required = action.required and action.dest not in settings
    *settings_objects, unknown = parser.parse_args_into_dataclasses(
        arguments, look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        close = get_close_matches(unknown[0], flags, n=1)
        raise ValueError(f"Unknown argument {unknown[0]}." + (f" Did you mean {close[0]}?" if close else ""))
    return tuple(settings_objects)


def read_recipe(recipe: str | Path, known: set[str]) -> dict[str, Any]:
    """Read a recipe, a YAML or JSON file or the name of one in the package, and refuse fields that are not known."""
    path = Path(recipe)
    if not path.is_file():
        path = RECIPES_FOLDER / f"{recipe}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in RECIPES_FOLDER.glob("*.yaml")))
        raise FileNotFoundError(f"No recipe at {recipe}; give a YAML or JSON file, one of {names}, or flags only.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"The recipe {path} is not valid YAML or JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"The recipe {path} must map names of settings to values, like `learning_rate: 1e-4`.")
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"The recipe {path} has fields that nothing reads: {', '.join(map(str, unknown))}.")
    hide_parents_of(settings.values())
    # The parser converts text as it would on the command line, which a mapping needs as JSON.
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in settings.items()}
