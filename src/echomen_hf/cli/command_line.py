"""The end of a command: its exit status, and mistakes of the user in one line instead of a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import typer

from ..runs.private_text import private_streams


__all__ = ["TRACEBACK_VARIABLE", "run_script"]

TRACEBACK_VARIABLE = "ECHOMEN_HF_TRACEBACK"
"""Environment variable that, if it is set, lets errors come with their traceback."""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a main function and exit with its status.

    What it prints, tracebacks included, goes through `echomen_hf.runs.private_text`.

    Args:
        main: Function that returns the exit status, or nothing for 0. These errors end the process with status 2 and
            their message: mistakes on the command line; `ValueError`, `TypeError` and `OSError`, which report bad
            input, on their own or in a check of a configuration; `FloatingPointError`, which reports a loss that is
            not finite; `ImportError`, which reports a missing package. Any other error is a defect: it keeps its
            traceback, and the status is 1.
    """
    with private_streams():
        try:
            status = main() or 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            status = 130
        except typer.TyperException as error:
            print(f"error: {error.format_message()}", file=sys.stderr)
            status = 2
        except Exception as error:
            mistake = _mistake_in(error)
            if mistake is None or os.environ.get(TRACEBACK_VARIABLE):
                traceback.print_exc()
            else:
                print(f"error: {mistake}\n(set {TRACEBACK_VARIABLE}=1 to see where it was raised)", file=sys.stderr)
            status = 1 if mistake is None else 2
    sys.exit(status)


def _mistake_in(error: BaseException | None) -> BaseException | None:
    """Find the mistake of the user that an error reports; `None` for a defect."""
    from huggingface_hub.errors import StrictDataclassError  # takes a third of the import of this package

    if isinstance(error, StrictDataclassError):
        error = error.__cause__
    return error if isinstance(error, (FloatingPointError, ImportError, OSError, TypeError, ValueError)) else None
