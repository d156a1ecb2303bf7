"""The command `echomen`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from ..runs.private_text import hide_parents_of, paths_among
from . import (
    adapt,
    app,
    calibrate,
    compare,
    demo,
    embed,
    evaluate,
    evaluate_outline,
    examine,
    export,
    import_weights,
    predict,
    push,
    simulate,
    train,
    train_outline,
    version,
)
from .command_line import run_script


__all__ = ["invoke", "main"]

echomen = typer.Typer(
    name="echomen",
    help="EchoMEN: ejection fraction from echocardiogram video.",
    add_completion=False,
    rich_markup_mode=None,
)
# These two hand their flags, which are the fields of dataclasses, and --help on to a parser of their own.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
echomen.command("train", add_help_option=False, context_settings=PASS_ON)(train.main)
echomen.command("evaluate")(evaluate.main)
echomen.command("evaluate-outline")(evaluate_outline.main)
echomen.command("embed")(embed.main)
echomen.command("predict")(predict.main)
echomen.command("calibrate")(calibrate.main)
echomen.command("adapt")(adapt.main)
echomen.command("compare", add_help_option=False, context_settings=PASS_ON)(compare.main)
echomen.command("export")(export.main)
echomen.command("import-weights")(import_weights.main)
echomen.command("simulate")(simulate.main)
echomen.command("examine")(examine.main)
echomen.command("train-outline")(train_outline.main)
echomen.command("push")(push.main)
echomen.command("app")(app.main)
echomen.command("demo")(demo.main)
echomen.command("version")(version.main)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command line in this process.

    Args:
        arguments: Name of a command and its arguments, as text.

    Returns:
        Exit status.
    """
    command = typer.main.get_command(echomen)
    try:
        with command.make_context("echomen", list(arguments) or ["--help"]) as context:
            return command.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code


def main(*command: str) -> NoReturn:
    """Run the command line of this process, and exit with its status.

    Args:
        command: Words before those that the user typed: the command, for a script that has only one.
    """
    arguments = [*command, *sys.argv[1:]]
    # The demo has no patients, and prints commands that are to be typed again.
    if arguments[:1] != ["demo"] and "--absolute_paths" not in arguments:
        hide_parents_of(paths_among(arguments))
    run_script(lambda: invoke(arguments))
