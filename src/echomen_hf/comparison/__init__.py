"""Comparison of methods over seeds: the paper's tables for any data set."""

from .cells import Cell, CellFolder
from .runner import ComparisonOutcome, run_comparison
from .settings import ComparisonSettings, read_settings
from .significance import paired_bootstrap, significance_table, two_way_test
from .variants import SWEEPS, select_methods


__all__ = [
    "SWEEPS",
    "Cell",
    "CellFolder",
    "ComparisonOutcome",
    "ComparisonSettings",
    "paired_bootstrap",
    "read_settings",
    "run_comparison",
    "select_methods",
    "significance_table",
    "two_way_test",
]
