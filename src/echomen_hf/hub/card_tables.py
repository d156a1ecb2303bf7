"""Tables of a model card."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.layouts.tables import SPLIT_NAMES
from ..evaluation.group_errors import MIN_VIDEOS, ColumnErrors
from ..evaluation.report import MISSING_VALUE, markdown_table, with_interval
from ..labels import category_masks
from ..metrics import AUROC_THRESHOLDS
from ..model.configuration_echomen import EchoMENConfig
from ..model.heart_failure_category_echomen import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from ..runs.compared_arguments import compared_arguments
from .run_record import RunRecord


__all__ = [
    "UNKNOWN",
    "bias_table",
    "column_table",
    "configuration_table",
    "data_table",
    "hyperparameter_table",
    "list_of_numbers",
    "metrics_table",
    "scalar_metrics",
    "small_categories",
    "suffix",
]

UNKNOWN = "unknown"

# Arguments that only one of the stages looks at.
STAGE_1_ARGUMENTS = frozenset(
    {
        "contrastive_temperature",
        "contrastive_weight",
        "label_distance",
        "label_distance_scale",
        "num_views",
        "positive_bin_width",
    }
)
STAGE_2_ARGUMENTS = frozenset(
    {
        "aggregator_gradients",
        "aggregator_learning_rate_factor",
        "aggregator_weight_exponent",
        "embedding_draws",
        "expert_bin_width",
        "expert_min_count",
        "expert_solver",
    }
)


def data_table(record: RunRecord) -> str:
    """Number of videos of every split and category."""
    rows = []
    for split in dict.fromkeys(SPLIT_NAMES.values()):
        labels = np.array([row["ejection_fraction"] for row in record.videos if row["split"] == split])
        if labels.size == 0:
            continue
        masks = category_masks(labels)
        counts = [str(int(masks[category].sum())) for category in HEART_FAILURE_CATEGORIES]
        rows.append([split, str(labels.size), *counts, f"{labels.mean():.1f}", f"{labels.std():.1f}"])
    titles = [CATEGORY_TITLES[category] for category in HEART_FAILURE_CATEGORIES]
    return markdown_table(["Split", "Videos", *titles, "Mean EF (%)", "SD"], rows)


def hyperparameter_table(record: RunRecord) -> str:
    """Every argument that decides what a run computes, by stage; a dash marks what a stage does not use."""
    known = {name for stage in record.stages.values() for name in stage.arguments}
    names = [name for name in compared_arguments(known) if not name.startswith("stage2_")]
    rows = []
    for name in sorted([*names, "metric_for_best_model"]):
        cells = []
        for stage, foreign in ((1, STAGE_2_ARGUMENTS), (2, STAGE_1_ARGUMENTS)):
            if name in foreign:
                cells.append(MISSING_VALUE)
            elif stage not in record.stages or name not in record.stages[stage].arguments:
                cells.append(UNKNOWN)
            else:
                cells.append(setting(record.stages[stage].arguments[name]))
        rows.append([f"`{name}`", *cells])
    return markdown_table(["Argument", "Stage 1", "Stage 2"], rows)


def configuration_table(config: EchoMENConfig) -> str:
    """Every field of the model's configuration."""
    # Intervals have a section of their own, and an encoder other than R(2+1)D is described above.
    own_sections = ("interval_calibration", "recalibration", "usual_distance")
    of_encoder = ("encoder_config", "encoder_license", "encoder_name_or_path", "encoder_pooling", "vector_size")
    names = [name for name in EchoMENConfig.own_fields() if name not in (*own_sections, *of_encoder)]
    return markdown_table(["Field", "Value"], [[f"`{name}`", setting(getattr(config, name))] for name in names])


def metrics_table(metrics: dict[str, float]) -> str:
    """Errors per category, with their intervals."""
    rows = []
    for category, title in CATEGORY_TITLES.items():
        cells = [with_interval(metrics, f"{name}{suffix(category)}") for name in ("mae", "gm", "rmse", "bias")]
        rows.append([f"{title}{ef_range(category)}", str(int(metrics[f"n{suffix(category)}"])), *cells])
    return markdown_table(["Category", "Videos", "MAE", "GM", "RMSE", "Bias"], rows)


def scalar_metrics(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """Name and value of the metrics that are not errors per category."""
    names = {"balanced_mae": "Balanced MAE (mean of the three categories)", "r2": "R²"}
    names |= {f"auroc_ef_below_{cut:g}": f"AUROC for EF < {cut:g} %" for cut in AUROC_THRESHOLDS}
    return [(title, with_interval(metrics, key)) for key, title in names.items() if key in metrics]


def bias_table(metrics: dict[str, float]) -> str:
    """Errors of every category, compared with those of all videos."""
    rows = []
    for category in HEART_FAILURE_CATEGORIES:
        ratio = metrics[f"mae{suffix(category)}"] / metrics["mae"] if metrics["mae"] else np.nan
        rows.append(
            [
                f"{CATEGORY_TITLES[category]}{ef_range(category)}",
                str(int(metrics[f"n{suffix(category)}"])),
                with_interval(metrics, f"mae{suffix(category)}"),
                with_interval(metrics, f"bias{suffix(category)}"),
                MISSING_VALUE if np.isnan(ratio) else f"{ratio:.2f}",
            ]
        )
    return markdown_table(["Category", "Videos", "MAE", "Bias", "MAE / MAE of all"], rows)


def column_table(entry: ColumnErrors) -> str:
    """Errors by the groups of one column."""
    rows = []
    for group, metrics in entry.groups.items():
        shown = [with_interval(metrics, name) for name in ("mae", "bias")] if "mae" in metrics else [MISSING_VALUE] * 2
        count = str(int(metrics["n"])) if "mae" in metrics else f"fewer than {MIN_VIDEOS}"
        rows.append([group, count, *shown])
    return markdown_table([entry.column, "Videos", "MAE", "Bias"], rows)


def small_categories(metrics: dict[str, float]) -> list[str]:
    """Titles and numbers of videos of the categories with fewer than 30 videos."""
    counts = {CATEGORY_TITLES[name]: int(metrics[f"n{suffix(name)}"]) for name in HEART_FAILURE_CATEGORIES}
    return [f"{title} ({count})" for title, count in counts.items() if count < 30]


def suffix(category: str) -> str:
    """Ending of a category's metric names, empty for `all`."""
    return "" if category == "all" else f"_{category}"


def ef_range(category: str) -> str:
    """EF interval of a category in brackets, empty for `all`."""
    if category == "all":
        return ""
    low, high = HEART_FAILURE_CATEGORIES[category]
    if low == 0:
        return f" (EF < {high:g} %)"
    return f" (EF ≥ {low:g} %)" if high == 100 else f" (EF {low:g} to < {high:g} %)"


def setting(value: Any) -> str:
    """Value of an argument as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def list_of_numbers(values: Any) -> str:
    """Numbers with two decimals."""
    return ", ".join(f"{value:.2f}" for value in np.atleast_1d(values))
