"""From the clips of a video to metrics, figures and reports."""

from ..inference.video_prediction import VideoPrediction, predict_split, predict_video
from .report import results_table
from .split_evaluation import SplitEvaluation, comparison_table, evaluate_split, save_report


__all__ = [
    "SplitEvaluation",
    "VideoPrediction",
    "comparison_table",
    "evaluate_split",
    "predict_split",
    "predict_video",
    "results_table",
    "save_report",
]
