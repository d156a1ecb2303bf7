"""Evaluation of a model on one split of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..data.clip_vectors import ClipVectors
from ..data.layouts.tables import SPLIT_NAMES
from ..inference import SharedWindows, VideoPrediction, predict_split, predict_vectors
from ..labels import CATEGORY_TITLES, ExpertWeightTable
from ..metrics import ef_regression_metrics, oracle_predictions
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibration_for
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import escape_formula, write_csv
from .figures import (
    bland_altman_figure,
    error_by_band_figure,
    expert_mae_figure,
    label_distribution_figure,
    sample_weight_figure,
    save_figures,
    scatter_figure,
)
from .interval_calibration import interval_metrics
from .report import markdown_table, predictor_comparison, results_table, write_metrics_json, write_predictions_csv


__all__ = [
    "SplitEvaluation",
    "comparison_table",
    "evaluate_split",
    "find_split",
    "interval_table",
    "report_figures",
    "save_report",
]

CARDIOBENCH_FILE = "cardiobench.csv"
"""Predictions in the columns that CardioBench reads."""

ROW_TITLES = {
    "constant_mean": "constant mean",
    "stage1": "stage-1 head",
    "mean": "mean of experts",
    "echomen": "EchoMEN",
    "oracle": "oracle",
}


@dataclass(frozen=True)
class SplitEvaluation:
    """Result of one evaluation.

    Args:
        predictions: Prediction of every video.
        references: EF of every video in percent, shape (N,).
        labels_by_split: EF in percent of every split of the data set.
        metrics: Metrics of the model, with intervals.
        comparison: Metrics of the model and its parts by name, see `predictor_comparison`.
        settings: Split, protocol, seed and intervals.
        weight_table: Weights that the training samples had for the experts; `None` if the data set has none.
        intervals: Of the model's prediction intervals the `nominal_coverage`, and what was `measured`, see
            `interval_metrics`; `None` for a model that is not calibrated for the protocol.
    """

    predictions: Sequence[VideoPrediction]
    references: NDArray[np.float64]
    labels_by_split: Mapping[str, NDArray[np.float64]]
    metrics: Mapping[str, float]
    comparison: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any]
    weight_table: ExpertWeightTable | None
    intervals: Mapping[str, Any] | None = None

    def predicted(self) -> dict[str, NDArray[np.float64]]:
        """Collect the predictions of the model and its parts.

        Returns:
            EF in percent, shape (N,), under the names of `comparison`, without the constant guess.
        """
        experts = np.stack([prediction.expert_predictions for prediction in self.predictions])  # (N, M)
        values = {"stage1": np.array([prediction.regression for prediction in self.predictions])}
        values |= {f"expert_{m}": column for m, column in enumerate(experts.T)}
        values["mean"] = experts.mean(axis=1)
        values["echomen"] = np.array([prediction.ejection_fraction for prediction in self.predictions])
        if "oracle" in self.comparison:
            values["oracle"] = oracle_predictions(experts, self.references)
        return {name: value for name, value in values.items() if name in self.comparison}


def comparison_table(comparison: Mapping[str, Mapping[str, float | None]]) -> str:
    """Format the errors of a model and of its parts as in the paper's tables.

    Args:
        comparison: Metrics by predictor, see `predictor_comparison`; `None` or NaN where undefined.

    Returns:
        Markdown table of balanced MAE, and of MAE and GM per heart-failure category.
    """
    # A file that was written with sorted keys has lost the order of the rows.
    experts = sorted((name for name in comparison if name.startswith("expert_")), key=lambda name: int(name[7:]))
    order = ["constant_mean", "stage1", *experts, "mean", "echomen", "oracle"]
    rows = {
        ROW_TITLES.get(name, name.replace("_", " ")): {
            key: np.nan if value is None else value for key, value in comparison[name].items()
        }
        for name in order
        if name in comparison
    }
    return results_table(rows, metrics=("balanced_mae", "mae", "gm"), unranked=[ROW_TITLES["oracle"]])


def interval_table(intervals: Mapping[str, Any]) -> str:
    """Format how often prediction intervals hold the true ejection fraction as a Markdown table."""
    rows = [
        [CATEGORY_TITLES[category], str(found["n"]), f"{found['coverage']:.1%}", f"{found['width']:.1f}"]
        for category, found in intervals["measured"].items()
    ]
    name = f"Coverage (nominal {intervals['nominal_coverage']:.0%})"
    return markdown_table(["Category", "n", name, "Mean width (EF points)"], rows)


def evaluate_split(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Mapping[str, Any],
    *,
    split: str = "test",
    protocol: str = "windows",
    batch_size: int = 8,
    num_workers: int = 0,
    bootstrap_samples: int = 1000,
    confidence_level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
    windows: SharedWindows | None = None,
    vectors: ClipVectors | None = None,
) -> SplitEvaluation:
    """Predict every video of a split and measure the errors.

    Args:
        model: Trained model.
        processor: Its video processor.
        videos: Data set of `load_videos`, with all its splits: the constant guess is the training split's mean, and is
            left out where there is none. Where the rows tell the patient, intervals are by patient.
        split: Split to evaluate.
        protocol: Clips per video, see `protocol_starts`.
        batch_size: Clips per forward pass.
        num_workers: Processes that read videos.
        bootstrap_samples: Resamples of the intervals; 0 leaves them out.
        confidence_level: Coverage of the intervals.
        seed: Seed of the bootstrap.
        progress: Whether to show a progress bar.
        windows: What runs the encoder on all clips of a video together; by default, each clip runs on its own.
        vectors: Vectors of the clips, which are then predicted from instead of the videos; the protocol is theirs.

    Returns:
        The evaluation. For a model of stage 1 it compares the stage-1 head with the constant guess only.

    Raises:
        ValueError: If there is no such split, or it is empty.
    """
    name = find_split(videos, split)
    if not 0 < confidence_level < 1 or bootstrap_samples < 0:
        raise ValueError(
            "`confidence_level` lies between 0 and 1, such as 0.95, and `bootstrap_samples` is not negative; got "
            f"{confidence_level} and {bootstrap_samples}."
        )
    if vectors is not None:
        protocol = vectors.protocol
        predictions = predict_vectors(model, vectors, videos[name])
    else:
        predictions = predict_split(
            model, processor, videos[name], protocol, batch_size, num_workers, progress, windows=windows
        )
    references = np.asarray(videos[name]["ejection_fraction"], dtype=np.float64)
    labels = {key: np.asarray(rows["ejection_fraction"], dtype=np.float64) for key, rows in videos.items()}
    experts = np.stack([prediction.expert_predictions for prediction in predictions])  # (N, M)
    comparison = predictor_comparison(
        references,
        np.array([prediction.regression for prediction in predictions]),
        None if np.isnan(experts).any() else experts,
        np.array([prediction.ejection_fraction for prediction in predictions]),
        labels.get("train"),
    )
    if model.config.prediction_head == "regression":
        # Experts that were never trained would be rows of noise.
        comparison = {key: comparison[key] for key in ("constant_mean", "stage1") if key in comparison}
    metrics = ef_regression_metrics(
        [prediction.ejection_fraction for prediction in predictions],
        references,
        bootstrap_samples=bootstrap_samples,
        confidence_level=confidence_level,
        seed=seed,
        patients=patients_of(videos[name]),
    )
    settings = {
        "split": name,
        "protocol": protocol,
        "seed": seed,
        "bootstrap_samples": bootstrap_samples,
        "confidence_level": confidence_level if bootstrap_samples else None,
    }
    config = model.config
    table = None
    if "train" in labels:
        table = ExpertWeightTable(
            labels["train"], config.num_experts, config.expert_bin_width, config.expert_min_count
        )
    calibration = calibration_for(config, protocol)
    intervals = None
    if calibration is not None:
        predicted = [prediction.ejection_fraction for prediction in predictions]
        measured = interval_metrics(predicted, references, calibration)
        intervals = {"nominal_coverage": calibration["coverage"], "measured": measured}
    return SplitEvaluation(predictions, references, labels, metrics, comparison, settings, table, intervals)


def patients_of(videos: Any) -> list[str] | None:
    """Patient of every row, a row without one counting as its own; `None` if no row tells it."""
    if "patient" not in videos.column_names or not any(videos["patient"]):
        return None
    return [patient or name for patient, name in zip(videos["patient"], videos["file_name"])]


def find_split(videos: Mapping[str, Any], split: str) -> str:
    """Find a split by any of its names."""
    name = SPLIT_NAMES.get(split.strip().lower())
    if name is None or name not in videos:
        raise ValueError(f"No split {split!r}; the data set has {', '.join(videos)}.")
    return name


def report_figures(evaluation: SplitEvaluation, subtitle: str | None = None) -> dict[str, Figure]:
    """Draw the paper's figures for one evaluation, by file name."""
    labels, references = evaluation.labels_by_split, evaluation.references
    values = {ROW_TITLES.get(key, key.replace("_", " ")): v for key, v in evaluation.predicted().items()}
    methods = {name: v for name, v in values.items() if name in (ROW_TITLES["stage1"], ROW_TITLES["echomen"])}
    final = list(methods.values())[-1]
    figures = {
        "label_distribution": label_distribution_figure(labels, subtitle=subtitle),
        "error_by_band": error_by_band_figure(methods, references, subtitle=subtitle),
        "mae_by_category": expert_mae_figure(values, references, subtitle=subtitle),
        "bland_altman": bland_altman_figure(final, references, subtitle=subtitle),
    }
    if np.ptp(references) > 0:
        figures["scatter"] = scatter_figure(methods, references, subtitle=subtitle)
    if evaluation.weight_table is not None:
        figures["sample_weights"] = sample_weight_figure(
            evaluation.weight_table, train_labels=labels["train"], subtitle=subtitle
        )
    return figures


def save_report(
    evaluation: SplitEvaluation,
    output_dir: str | Path,
    *,
    model: str | Path,
    data_dir: str | Path,
    data_checksum: str | None = None,
    synthetic: bool = False,
) -> Path:
    """Write metrics.json, predictions.csv, the same as CardioBench reads it, and the figures.

    Args:
        evaluation: The evaluation.
        output_dir: Folder to write to; it is made if missing.
        model: Folder or Hub id of the model, for the record.
        data_dir: Folder of the data set, for the record.
        data_checksum: Its `DataSet.checksum`, for the record.
        synthetic: Whether the data are simulated; file and figures then say so.

    Returns:
        The folder.
    """
    folder = Path(output_dir)
    settings = evaluation.settings
    write_predictions_csv(folder / "predictions.csv", evaluation.predictions, evaluation.references)
    cardiobench = pd.DataFrame(
        {
            "FileName": [escape_formula(prediction.file_name) for prediction in evaluation.predictions],
            "EF_pred": [prediction.ejection_fraction for prediction in evaluation.predictions],
        }
    )
    write_csv(folder / CARDIOBENCH_FILE, cardiobench)
    write_metrics_json(
        folder / "metrics.json",
        evaluation.metrics,
        model=model,
        data_dir=data_dir,
        data_checksum=data_checksum,
        extra={
            "comparison": evaluation.comparison,
            "synthetic_data": synthetic,
            "prediction_intervals": evaluation.intervals,
        },
        **settings,
    )
    kind = "synthetic data, " if synthetic else ""
    subtitle = f"{kind}{settings['split']} split, {len(evaluation.references)} videos, protocol {settings['protocol']}"
    save_figures(report_figures(evaluation, subtitle), folder / "figures")
    return folder
