"""Metrics files, tables of predictions, and tables that compare methods."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..labels import CATEGORY_TITLES, heart_failure_category
from ..metrics import ef_regression_metrics, oracle_predictions
from ..model.video_prediction_echomen import VideoPrediction
from ..runs.files import (
    escape_formula,
    folder_name,
    folder_or_id,
    unescape_formula,
    weights_checksum,
    write_json,
    write_text,
)
from ..runs.installed_versions import RESULT_PACKAGES, installed_versions


__all__ = [
    "MISSING_VALUE",
    "confidence_interval",
    "markdown_table",
    "package_versions",
    "predictor_comparison",
    "read_metrics_json",
    "read_predictions_csv",
    "results_table",
    "with_interval",
    "write_metrics_json",
    "write_predictions_csv",
]

TEXT_COLUMNS = ("FileName", "EF_category", "category")
METRIC_TITLES = {
    "balanced_mae": "Balanced MAE",
    "mae": "MAE",
    "gm": "GM",
    "rmse": "RMSE",
    "bias": "Bias",
    "slope": "Slope",
}
MISSING_VALUE = "–"


def write_metrics_json(
    path: str | Path,
    metrics: Mapping[str, float],
    *,
    protocol: str,
    split: str,
    seed: int,
    model: str | Path,
    data_dir: str | Path,
    data_checksum: str | None = None,
    confidence_level: float | None = None,
    bootstrap_samples: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write metrics with everything that is needed to compute them again; the same input gives the same bytes.

    NaN is written as null, `confidence_level` as `ci_level`. `extra` adds entries, whose values may be nested. Of the
    folders `model` and `data_dir` only names are kept, and checksums of what is in them; that of the data is
    `DataSet.checksum`.
    """
    if "n" not in metrics:
        raise ValueError("`metrics` lack `n`, the number of videos; pass what `ef_regression_metrics` returns.")
    if confidence_level is None and any(name.endswith("_ci_low") for name in metrics):
        raise ValueError("`metrics` have confidence intervals; pass the `confidence_level` they were computed with.")
    document: dict[str, Any] = {
        "bootstrap_samples": bootstrap_samples,
        "ci_level": confidence_level,
        "data_dir": folder_name(data_dir),
        "file_list_sha256": data_checksum,
        "metrics": metrics,
        "model": folder_or_id(model),
        "model_sha256": weights_checksum(model),
        "n": metrics["n"],
        "protocol": protocol,
        "seed": seed,
        "split": split,
        "versions": package_versions(),
    }
    if clashes := sorted(document.keys() & (extra or {}).keys()):
        raise ValueError(f"`extra` must not replace other entries of the file: {', '.join(clashes)}.")
    document.update(extra or {})
    return write_json(path, document)


def package_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on; `None` for one not installed."""
    return {"python": platform.python_version(), **installed_versions(RESULT_PACKAGES)}


def read_metrics_json(path: str | Path) -> dict[str, Any]:
    """Read a file of `write_metrics_json`; null among the metrics is NaN again."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        metrics = document["metrics"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a metrics file: it is not a JSON object with an entry `metrics`.") from error
    return {**document, "metrics": {name: np.nan if value is None else value for name, value in metrics}}


def write_predictions_csv(
    path: str | Path, predictions: Sequence[VideoPrediction], references: ArrayLike | None = None
) -> Path:
    """Write one row per video, with numbers in full.

    The columns are `FileName`; `EF` and `EF_category` (reference, empty if unknown); `EF_pred` and `category`
    (prediction); `EF_stage1`; `EF_expert_0`, ...; `weight_0`, ...; `clips`; `clip_sd`.
    """
    if not predictions:
        raise ValueError(f"There are no predictions to write to {path}.")
    reference = np.full(len(predictions), np.nan) if references is None else np.asarray(references, dtype=np.float64)
    if reference.shape != (len(predictions),):
        raise ValueError(
            f"`references` must have one EF per prediction, shape ({len(predictions)},), got {reference.shape}."
        )
    expert_counts = {len(prediction.expert_predictions) for prediction in predictions}
    if len(expert_counts) > 1:
        raise ValueError(f"All predictions must come from the same number of experts, got {sorted(expert_counts)}.")
    rows = [_prediction_row(prediction, ef) for prediction, ef in zip(predictions, reference.tolist(), strict=True)]
    return write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def read_predictions_csv(path: str | Path) -> pd.DataFrame:
    """Read a file of `write_predictions_csv`; numbers are exact, an unknown one is NaN."""
    # As text, names of videos stay what they are, and `float` is exact with every version of pandas.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in ("FileName", "EF", "EF_pred") if name not in frame]:
        raise ValueError(f"{path} is not a table of predictions: column {', '.join(missing)} is missing.")
    for name in frame.columns.difference(TEXT_COLUMNS, sort=False):
        try:
            frame[name] = np.array([float(cell or "nan") for cell in frame[name]])
        except ValueError as error:
            raise ValueError(f"{path}: column {name} must hold numbers, but {error}.") from error
    frame["FileName"] = [unescape_formula(name) for name in frame["FileName"]]
    return frame.astype({"clips": np.int64} if "clips" in frame else {})


def predictor_comparison(
    references: ArrayLike,
    stage1_predictions: ArrayLike | None,
    expert_predictions: ArrayLike | None,
    echomen_predictions: ArrayLike,
    train_labels: ArrayLike | None,
    **metric_options: Any,
) -> dict[str, dict[str, float]]:
    """Compare EchoMEN with its parts, with a constant guess and with the best of its experts.

    The result holds metrics by predictor: `constant_mean` (mean of the training split), `stage1`, `expert_0`, ...,
    `mean` (plain mean of the experts), `echomen` and `oracle` (the best expert of every sample, figure 3b; it uses the
    reference and is no method). `None` in the place of predictions, shapes (N,) and (N, M), or of the training labels
    leaves them out.
    """
    predictors: dict[str, ArrayLike] = {}
    if train_labels is not None:
        train = np.asarray(train_labels, dtype=np.float64)
        if train.size == 0 or not np.isfinite(train).all():
            raise ValueError("`train_labels` must be the finite ejection fractions of the training split.")
        predictors["constant_mean"] = np.full(len(np.asarray(references)), train.mean())
    if stage1_predictions is not None:
        predictors["stage1"] = stage1_predictions
    if expert_predictions is None:
        predictors["echomen"] = echomen_predictions
    else:
        experts = np.asarray(expert_predictions, dtype=np.float64)
        oracle = oracle_predictions(experts, references)
        predictors.update({f"expert_{m}": predicted for m, predicted in enumerate(experts.T)})
        predictors.update({"mean": experts.mean(axis=1), "echomen": echomen_predictions, "oracle": oracle})
    return {name: ef_regression_metrics(values, references, **metric_options) for name, values in predictors.items()}


def results_table(
    results: Mapping[str, Mapping[str, float]],
    *,
    metrics: Sequence[str] = ("mae", "gm"),
    unranked: Collection[str] = (),
    intervals: bool = False,
) -> str:
    """Format errors of several methods as in table 1 of the paper, overall and per heart-failure category.

    Args:
        results: Row label to metrics of `ef_regression_metrics`, or to as many of them as were published.
        metrics: Metrics to show, without the suffix of a category: `mae`, `gm`, `rmse`, `bias` with a column for each
            category, `balanced_mae` with one. All are errors, of which the smallest magnitude is the best.
        unranked: Rows that are never the best, such as the oracle, or numbers measured on other data.
        intervals: Whether to add the confidence interval where there is one.

    Returns:
        Markdown with the best value of every column in bold, and the numbers of videos in the header once;
        an en dash stands where a value is not known.

    Raises:
        ValueError: If there are no results, or rows were computed on different numbers of videos.
    """
    if not results:
        raise ValueError("A table of results needs at least one method.")
    header = ["Method"]
    columns: list[list[str]] = []
    counts = {category: _count(results, category) for category in CATEGORY_TITLES}
    for metric in metrics:
        title = METRIC_TITLES.get(metric, metric)
        if metric == "balanced_mae":
            header.append(title)
            columns.append(_result_column(results, metric, unranked, intervals))
            continue
        for category, category_title in CATEGORY_TITLES.items():
            header.append(f"{title} {category_title}{counts.pop(category, '')}")
            columns.append(_result_column(results, _key(metric, category), unranked, intervals))
    return markdown_table(header, [[label, *cells] for label, *cells in zip(results, *columns, strict=True)])


def confidence_interval(metrics: Mapping[str, float], key: str) -> tuple[float, float]:
    """Lower and upper end of the confidence interval of a metric, `KEY_ci_low` and `KEY_ci_high`; NaN if unknown."""
    return metrics.get(f"{key}_ci_low", np.nan), metrics.get(f"{key}_ci_high", np.nan)


def with_interval(metrics: Mapping[str, float], key: str, interval: bool = True) -> str:
    """Format a metric as text, with its confidence interval if it has one.

    Args:
        metrics: Metrics.
        key: Name of the metric.
        interval: Whether to show the interval.

    Returns:
        The text, a dash if the metric is not defined.
    """
    value = metrics.get(key, np.nan)
    low, high = confidence_interval(metrics, key)
    if np.isnan(value):
        return MISSING_VALUE
    return f"{value:.2f}" + (f" ({low:.2f} to {high:.2f})" if interval and low <= high else "")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format text as a Markdown table whose columns also line up as plain text."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"Row {list(row)} has {len(row)} cells, the header has {len(header)}.")
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        [cell.rjust(width) if position else cell.ljust(width) for position, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    rule = ["-" * (width - 1) + ":" if position else ":" + "-" * (width - 1) for position, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:]))


def _prediction_row(prediction: VideoPrediction, reference: float) -> dict[str, Any]:
    known = not np.isnan(reference)
    return {
        "FileName": escape_formula(prediction.file_name),
        "EF": reference,
        "EF_category": CATEGORY_TITLES[heart_failure_category(reference)] if known else "",
        "EF_pred": prediction.ejection_fraction,
        "category": CATEGORY_TITLES[heart_failure_category(prediction.ejection_fraction)],
        "EF_stage1": prediction.regression,
        **{f"EF_expert_{m}": float(value) for m, value in enumerate(prediction.expert_predictions)},
        **{f"weight_{m}": float(value) for m, value in enumerate(prediction.expert_weights)},
        "clips": prediction.num_clips,
        "clip_sd": prediction.clip_sd,
    }


def _key(metric: str, category: str) -> str:
    return metric if category == "all" else f"{metric}_{category}"


def _count(results: Mapping[str, Mapping[str, float]], category: str) -> str:
    key = _key("n", category)
    counts = {label: int(values[key]) for label, values in results.items() if key in values}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The rows of one table must be measured on the same videos, but {key} is {counts}.")
    return f" (n={next(iter(counts.values()))})" if counts else ""


def _result_column(
    results: Mapping[str, Mapping[str, float]], key: str, unranked: Collection[str], intervals: bool
) -> list[str]:
    # Values that are printed alike are ranked alike.
    shown = {label: f"{values.get(key, np.nan):.2f}" for label, values in results.items()}
    ranked = {label: abs(float(text)) for label, text in shown.items() if label not in unranked and text != "nan"}
    cells = []
    for label, text in shown.items():
        cell = MISSING_VALUE if text == "nan" else text
        if len(ranked) > 1 and ranked.get(label) == min(ranked.values()):
            cell = f"**{cell}**"
        low, high = (results[label].get(f"{key}_ci_{side}", np.nan) for side in ("low", "high"))
        if intervals and not np.isnan([low, high]).any():
            cell += f" ({low:.2f} to {high:.2f})"
        cells.append(cell)
    return cells
