"""Loading of the `evaluate` module `ef_regression`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import evaluate

__all__ = ["METRIC_MODULE_PATH", "load_metric"]

METRIC_MODULE_PATH = Path(__file__).parent / "ef_regression"
"""Directory of the module; `evaluate.load(str(METRIC_MODULE_PATH))` loads it without network."""


def load_metric(**load_options: Any) -> evaluate.EvaluationModule:
    """Load the `ef_regression` metric of this package, without network.

    Args:
        **load_options: Options of `evaluate.load`, for instance `experiment_id`, `num_process` and `process_id` for
            predictions that are collected from several processes.

    Returns:
        The metric, with `add`, `add_batch` and `compute`.
    """
    # Imported here and not above: a script named evaluate.py that runs first on the path takes the library's name.
    import evaluate

    return evaluate.load(str(METRIC_MODULE_PATH), **load_options)
