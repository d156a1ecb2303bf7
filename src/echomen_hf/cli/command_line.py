"""How a script ends when its user made a mistake: one line that says what to do, and not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn


__all__ = ["TRACEBACK_VARIABLE", "run_script"]

TRACEBACK_VARIABLE = "ECHOMEN_HF_TRACEBACK"
"""Environment variable that, if it is set, lets errors come with their traceback."""


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run the main function of a script and exit with its status.

    Args:
        main: Function that returns the exit status, or nothing for 0. Its `ValueError`, `TypeError` and `OSError`,
            with which this package reports bad input, and `FloatingPointError`, with which it reports a loss that is
            not finite, end the script with status 2 and their message; any other error is a defect and keeps its
            traceback.
    """
    try:
        status = main() or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except (FloatingPointError, OSError, TypeError, ValueError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"error: {error}\n(set {TRACEBACK_VARIABLE}=1 to see where it was raised)", file=sys.stderr)
        status = 2
    sys.exit(status)
