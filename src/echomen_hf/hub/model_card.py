"""The model card: what the files of a run say about a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..evaluation.group_errors import MIN_VIDEOS, ColumnErrors, errors_by_column
from ..evaluation.report import confidence_interval
from ..evaluation.split_evaluation import comparison_table, interval_table
from ..model.configuration_echomen import EchoMENConfig
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.run_folder import weights_are_simulated
from .card_tables import (
    UNKNOWN,
    bias_table,
    column_table,
    configuration_table,
    data_table,
    hyperparameter_table,
    list_of_numbers,
    metrics_table,
    scalar_metrics,
    small_categories,
    suffix,
)
from .run_record import RunRecord


__all__ = ["CARD_TAGS", "create_model_card"]

TEMPLATE = Path(__file__).with_name("model_card_template.md")
RANDOM = "random"

CARD_TAGS = ("echomen", "echocardiography", "ejection-fraction", "imbalanced-regression", "medical", "video")

RUN_SETTINGS = ("crop_padding", "eval_protocol", "num_processes")

FIGURE_CAPTIONS = {
    "mae_by_category": "Mean absolute error per heart-failure category, for the model and its parts.",
    "error_by_band": "Error by reference EF.",
    "scatter": "Predicted against reference EF.",
    "bland_altman": "Bland-Altman plot: difference against mean of predicted and reference EF.",
    "label_distribution": "Distribution of EF in the data.",
    "sample_weights": "Weights of the training samples for each expert.",
}

DATA_NAMES = {
    "synthetic": "synthetic echocardiograms of echomen_hf (SYNTHETIC)",
    "echonet_dynamic": "EchoNet-Dynamic",
    "other": "another data set",
    "unknown": UNKNOWN,
}

INDEX_METRICS = {
    "mae": "Mean absolute error (EF points)",
    "gm": "Geometric mean of absolute errors (EF points)",
    "rmse": "Root mean squared error (EF points)",
}


def create_model_card(
    config: EchoMENConfig,
    record: RunRecord,
    *,
    repo_id: str,
    processor: EchoMENVideoProcessor | None = None,
    num_parameters: int | None = None,
    figure_paths: dict[str, str] | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """Fill the template with what is known about a model; the rest is called unknown.

    Args:
        config: Configuration of the model.
        record: Record of the run; its `warnings` receive every field that cannot be filled.
        repo_id: Id of the repository on the Hub, for the title and the usage examples.
        processor: Video processor of the model.
        num_parameters: Number of parameters.
        figure_paths: Path in the repository by name of each figure. Defaults to no figures.
        license: Licence. Defaults to the one that follows from the training data.
        tags: Further tags.

    Returns:
        The card, with results in its metadata's `model-index`.
    """
    figure_paths = figure_paths or {}
    warn_about_unknown_settings(config, record)
    document = record.evaluation.document if record.evaluation is not None else None
    columns = column_errors(record)
    synthetic = ("synthetic-data",) if record.training_data == "synthetic" else ()
    card_data = ModelCardData(
        **license_fields(record, license, config.encoder_license),
        library_name="transformers",
        pipeline_tag=None if config.vector_size else "video-classification",
        tags=[*CARD_TAGS, *synthetic, *tags],
        metrics=["mae", "rmse"] if document is not None else None,
        model_name=repo_id.split("/")[-1],
        eval_results=evaluation_results(record) or None,
    )
    if emissions := emission_fields(record):
        card_data["co2_eq_emissions"] = emissions
    return ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        repo_id=repo_id,
        title=repo_id.split("/")[-1],
        config=config,
        parameters=f"{num_parameters:,}" if num_parameters is not None else UNKNOWN,
        pixel_mean=list_of_numbers(processor.image_mean) if processor is not None else UNKNOWN,
        pixel_std=list_of_numbers(processor.image_std) if processor is not None else UNKNOWN,
        data_kind=record.training_data,
        data_layout=record.layout,
        data_name=DATA_NAMES[record.training_data],
        data_table=data_table(record) if record.trained_on_videos else "",
        initial_weights=initial_weights(record),
        free_weights=has_free_weights(record),
        **{name: record.settings.get(f"run.{name}", UNKNOWN) for name in RUN_SETTINGS},
        stages=[stage_facts(record, stage) for stage in (1, 2)],
        hyperparameters=hyperparameter_table(record),
        configuration=configuration_table(config),
        document=document,
        evaluation_data=evaluation_data(record),
        results=metrics_table(document["metrics"]) if document is not None else "",
        scalars=scalar_metrics(document["metrics"]) if document is not None else [],
        comparison=comparison_table(document["comparison"]) if document and "comparison" in document else "",
        intervals=interval_table(document["prediction_intervals"])
        if document and document.get("prediction_intervals")
        else "",
        hearts_needed=hearts_needed(document),
        small_categories=small_categories(document["metrics"]) if document is not None else [],
        figures=[
            (FIGURE_CAPTIONS.get(name, name.replace("_", " ")), path) for name, path in sorted_figures(figure_paths)
        ],
        bias_table=bias_table(document["metrics"]) if document is not None else "",
        columns=[(entry, column_table(entry)) for entry in columns or []],
        columns_known=columns is not None,
        min_videos=MIN_VIDEOS,
        versions=document.get("versions", {}) if document is not None else {},
        emissions=emissions,
    )


def hearts_needed(document: dict[str, Any] | None) -> int | None:
    """Smallest number of hearts per category for which `calibrate_intervals` can rule an error out."""
    intervals = (document or {}).get("prediction_intervals")
    return math.ceil(2 / (1 - intervals["nominal_coverage"]) - 1 - 1e-6) if intervals else None


def warn_about_unknown_settings(config: EchoMENConfig, record: RunRecord) -> None:
    """Name the training settings that are missing in the record's `warnings`."""
    for stage in (1, 2):
        if stage not in record.stages and (stage == 1 or config.prediction_head == "experts"):
            record.warnings.append(
                f"The hyperparameters of stage {stage} are unknown: the run's folder has no finished stage {stage}."
            )
    absent = [name for name in RUN_SETTINGS if f"run.{name}" not in record.settings]
    if record.settings and absent:
        record.warnings.append(f"run.json does not state {', '.join(absent)}; the card calls them unknown.")


def license_fields(record: RunRecord, license: str | None, encoder_license: str | None = None) -> dict[str, str]:
    """Metadata of the licence; if the training data are unknown, of the strictest that may apply."""
    if license is not None:
        return {"license": license}
    if record.settings.get("model.encoder_name_or_path") and record.training_data == "synthetic":
        return {"license": "other", "license_name": encoder_license or "that-of-the-encoder"}
    if has_free_weights(record):
        return {"license": "apache-2.0"}
    return {
        "license": "other",
        "license_name": "research-use-only",
        "license_link": "https://echonet.github.io/dynamic/",
    }


def evaluation_results(record: RunRecord) -> list[EvalResult]:
    """Results per metric and category as entries of the Hub's `model-index`."""
    if record.evaluation is None:
        return []
    document = record.evaluation.document
    metrics = document["metrics"]
    results = []
    keys = [
        (f"{metric}{suffix(category)}", metric, f"{title}, {name}")
        for metric, title in INDEX_METRICS.items()
        for category, name in CATEGORY_TITLES.items()
    ]
    for key, metric, name in [*keys, ("balanced_mae", "mae", "Mean of the three categories' MAE (EF points)")]:
        value = metrics.get(key, np.nan)
        if np.isnan(value):
            continue
        arguments: dict[str, Any] = {"n": int(metrics.get(key.replace(metric, "n", 1), metrics["n"]))}
        low, high = confidence_interval(metrics, key)
        if not np.isnan([low, high]).any():
            arguments["confidence_level"] = document["ci_level"]
            arguments["interval"] = [round(low, 4), round(high, 4)]
        results.append(
            EvalResult(
                task_type="video-classification",
                task_name="Ejection fraction regression",
                dataset_type=data_slug(record),
                dataset_name=evaluation_data(record),
                dataset_split=document["split"],
                dataset_args={"protocol": str(document["protocol"]), "seed": document["seed"]},
                metric_type=metric,
                metric_name=name,
                metric_value=round(float(value), 4),
                metric_args=arguments,
            )
        )
    return results


def evaluation_data(record: RunRecord) -> str:
    """Name of the data that the model was evaluated on."""
    if record.evaluated_on_synthetic is None:
        return UNKNOWN
    if record.evaluated_on_synthetic:
        return DATA_NAMES["synthetic"]
    known = record.training_data == "echonet_dynamic" and record.evaluated_on_videos
    return DATA_NAMES["echonet_dynamic" if known else "other"]


def data_slug(record: RunRecord) -> str:
    """Identifier of the evaluation's data for the `model-index`."""
    slugs = {name: kind.replace("_", "-") for kind, name in DATA_NAMES.items()}
    return slugs[evaluation_data(record)]


def initial_weights(record: RunRecord) -> str:
    """File name or id of the weights that the training started from."""
    if not record.settings:
        return UNKNOWN
    for name in ("run.model", "run.backbone_checkpoint"):
        if record.settings.get(name):
            return f"`{Path(record.settings[name]).name}`"
    if encoder := record.settings.get("model.encoder_name_or_path"):
        return f"`{encoder}`"
    return RANDOM


def has_free_weights(record: RunRecord) -> bool:
    """Whether only simulated data went into the weights."""
    if record.training_data != "synthetic" or record.settings.get("model.encoder_name_or_path"):
        return False
    return initial_weights(record) == RANDOM or weights_are_simulated(record.settings)


def stage_facts(record: RunRecord, stage: int) -> dict[str, Any]:
    """Values of a stage for the template; `known` says whether there are any."""
    if stage not in record.stages:
        return {"number": stage, "known": False}
    arguments, state = record.stages[stage].arguments, record.stages[stage].state
    best, steps = state.get("best_metric"), state.get("best_global_step")
    epochs = [entry["epoch"] for entry in state.get("log_history", []) if entry.get("step") == steps]
    runtimes = [entry["train_runtime"] for entry in state.get("log_history", []) if "train_runtime" in entry]
    return {
        "number": stage,
        "known": True,
        "epochs": f"{state.get('epoch', np.nan):g}",
        "steps": state.get("global_step", UNKNOWN),
        "metric": str(arguments.get("metric_for_best_model", UNKNOWN)).upper(),
        "best": f"{best:.2f}" if best is not None else UNKNOWN,
        "best_epoch": f"{epochs[0]:g}" if epochs else UNKNOWN,
        "runtime": f"{runtimes[-1]:.0f} s" if runtimes else UNKNOWN,
    }


def column_errors(record: RunRecord) -> list[ColumnErrors] | None:
    """Errors by further columns of the data set; `None` without its predictions or rows."""
    if record.evaluation is None or record.evaluation.predictions is None or not record.videos:
        return None
    if not record.evaluated_on_videos:
        record.warnings.append("Errors by further columns are unknown: the data set lacks videos of the evaluation.")
        return None
    document = record.evaluation.document
    results = errors_by_column(
        record.evaluation.predictions,
        record.videos,
        bootstrap_samples=document["bootstrap_samples"],
        confidence_level=document["ci_level"] or 0.95,
        seed=document["seed"],
    )
    record.warnings += [
        f"The column {entry.column!r} is not in the card: {entry.omitted}." for entry in results if entry.omitted
    ]
    return results


def emission_fields(record: RunRecord) -> dict[str, Any]:
    """Measured emissions in grams for the metadata, empty if not measured."""
    measured = {number: stage.emissions for number, stage in record.stages.items() if stage.emissions is not None}
    if not measured:
        return {}
    return {
        "emissions": round(1000 * sum(measured.values()), 4),
        "source": "codecarbon",
        "training_type": "stage " + " and ".join(str(number) for number in measured),
    }


def sorted_figures(figure_paths: dict[str, str]) -> list[tuple[str, str]]:
    """Figures in the order of their captions, then by name."""
    order = {name: position for position, name in enumerate(FIGURE_CAPTIONS)}
    return sorted(figure_paths.items(), key=lambda entry: (order.get(entry[0], len(order)), entry[0]))
