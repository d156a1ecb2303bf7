"""Metrics, figures and reports."""

from .report import results_table
from .split_evaluation import SplitEvaluation, comparison_table, evaluate_split, save_report


__all__ = ["SplitEvaluation", "comparison_table", "evaluate_split", "results_table", "save_report"]
