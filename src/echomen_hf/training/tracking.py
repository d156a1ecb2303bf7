"""Example predictions and the distribution of expert weights, for experiment trackers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction, TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback, rewrite_logs

from ..data.clip_dataset import EvaluationClips
from ..evaluation.example_figure import example_predictions_figure
from ..labels import category_masks
from ..model.video_prediction_echomen import average_experts
from .embeddings import EvaluationEmbeddings


__all__ = ["EvaluationTracker", "ValidationPredictions", "only_ejection_fractions"]

EXAMPLES_PER_CATEGORY = 4
WEIGHT_BINS = np.linspace(0, 1, 21)
"""Edges of the histograms of expert weights, the same at every evaluation, so that they can be compared."""


@dataclass(frozen=True)
class ValidationPredictions:
    """Predictions for the V videos of one evaluation by M experts, in percent."""

    dataset: EvaluationClips | EvaluationEmbeddings
    ejection_fractions: NDArray[np.float64]  # (V,), means of the clips
    expert_predictions: NDArray[np.float64]  # (V, M), NaN where no clip consulted the expert
    expert_weights: NDArray[np.float64]  # (V, M)
    prefix: str  # of the names of metrics
    has_experts: bool  # whether the experts made the prediction, as from stage 2 on

    def mean_weights(self) -> dict[str, float]:
        """Average the weight of every expert over the videos, by name of metric; empty in stage 1."""
        means = self.expert_weights.mean(axis=0) if self.has_experts else []
        return {f"{self.prefix}_expert_{expert}_weight": float(mean) for expert, mean in enumerate(means)}

    def examples(self) -> NDArray[np.int64]:
        """Choose some videos of every heart-failure category, evenly from its lowest to its highest EF, ascending."""
        labels = self.dataset.labels
        by_label = np.argsort(labels, kind="stable")
        chosen = []
        for name, mask in category_masks(labels).items():
            members = by_label[mask[by_label]]
            if name != "all" and len(members):
                places = np.linspace(0, len(members) - 1, min(EXAMPLES_PER_CATEGORY, len(members)))
                chosen.append(members[np.rint(places).astype(np.int64)])
        return np.concatenate(chosen)


class EvaluationTracker(TrainerCallback):
    """Sends example predictions and histograms of expert weights to TensorBoard and trackio after every evaluation.

    It takes the values on their way to the metrics, so nothing is computed twice and nothing is drawn at random. The
    names of the example videos go to the tracker too. Without one of the two trackers it does nothing.
    """

    def __init__(self, callbacks: list[TrainerCallback]) -> None:
        self.callbacks = callbacks
        self.caught: ValidationPredictions | None = None

    def catch(
        self,
        compute_metrics: Callable[..., dict[str, float]] | None,
        dataset: Any,
        prefix: str,
        has_experts: bool,
    ) -> Callable[..., dict[str, float]] | None:
        """Wrap `compute_metrics`, if there is one, so that it also keeps the predictions for clips of videos."""
        self.caught = None
        if compute_metrics is None:
            return None

        def compute_and_keep(prediction: EvalPrediction, **options: Any) -> dict[str, float]:
            parts = prediction.predictions
            is_of_videos = isinstance(dataset, (EvaluationClips, EvaluationEmbeddings)) and isinstance(parts, tuple)
            if is_of_videos and not options:
                self.caught = per_video(*parts, dataset=dataset, prefix=prefix, has_experts=has_experts)
            alone = EvalPrediction(
                only_ejection_fractions(parts), prediction.label_ids, prediction.inputs, prediction.losses
            )
            return compute_metrics(alone, **options)

        return compute_and_keep

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the predictions of the evaluation, then forget them."""
        caught, self.caught = self.caught, None
        if caught is None or not state.is_world_process_zero:
            return
        for callback in self.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                send_to_tensorboard(callback.tb_writer, caught, state.global_step)
            elif isinstance(callback, TrackioCallback):
                send_to_trackio(caught, state.global_step)


def per_video(
    ejection_fractions: NDArray,
    expert_predictions: NDArray,
    expert_weights: NDArray,
    *,
    dataset: EvaluationClips | EvaluationEmbeddings,
    prefix: str,
    has_experts: bool,
) -> ValidationPredictions:
    """Average the clips of each video."""
    # Clips of one video follow each other.
    ends = np.flatnonzero(np.diff(dataset.video_index)) + 1

    def of_videos(values: NDArray) -> list[NDArray]:
        return np.split(np.asarray(values, dtype=np.float64), ends)

    return ValidationPredictions(
        dataset=dataset,
        ejection_fractions=np.array([clips.mean() for clips in of_videos(ejection_fractions)]),
        expert_predictions=np.stack([average_experts(clips) for clips in of_videos(expert_predictions)]),
        expert_weights=np.stack([clips.mean(axis=0) for clips in of_videos(expert_weights)]),
        prefix=prefix,
        has_experts=has_experts,
    )


def only_ejection_fractions(predictions: Any) -> Any:
    """Reduce a Trainer's predictions, (EF, experts, weights) or a list of such batches, to the EF."""
    if isinstance(predictions, tuple):
        return predictions[0]
    return [only_ejection_fractions(batch) for batch in predictions] if isinstance(predictions, list) else predictions


def send_to_tensorboard(writer: Any, caught: ValidationPredictions, step: int) -> None:
    """Write a figure of the examples and, in stage 2, a histogram per expert."""
    chosen = caught.examples()
    names, labels = caught.dataset.file_names, caught.dataset.labels
    figure = example_predictions_figure(
        [names[position] for position in chosen],
        labels[chosen],
        caught.ejection_fractions[chosen],
        caught.expert_predictions[chosen] if caught.has_experts else None,
        caught.expert_weights[chosen] if caught.has_experts else None,
        subtitle=f"step {step}; evenly chosen within each category",
    )
    writer.add_figure(tag(f"{caught.prefix}_examples"), figure, step)
    for expert, weights in enumerate(caught.expert_weights.T if caught.has_experts else []):
        name = tag(f"{caught.prefix}_expert_{expert}_weight_distribution")
        writer.add_histogram(name, weights, step, bins=WEIGHT_BINS)
    writer.flush()


def send_to_trackio(caught: ValidationPredictions, step: int) -> None:
    """Log a table of the examples and, in stage 2, a histogram per expert, to the current run of trackio."""
    import trackio

    if trackio.context_vars.current_run.get() is None:
        return
    logs: dict[str, Any] = {tag(f"{caught.prefix}_examples"): trackio.Table(*example_rows(caught))}
    for expert, weights in enumerate(caught.expert_weights.T if caught.has_experts else []):
        counts = np.histogram(weights, WEIGHT_BINS)
        logs[tag(f"{caught.prefix}_expert_{expert}_weight_distribution")] = trackio.Histogram(np_histogram=counts)
    trackio.log({**logs, "train/global_step": step})


def example_rows(caught: ValidationPredictions) -> tuple[list[str], list[list[Any]]]:
    """Make the columns and rows of a table of the examples; JSON has no NaN, so `None` stands for it."""
    experts = range(caught.expert_weights.shape[1] if caught.has_experts else 0)
    columns = ["video", "EF", "EF predicted", *(f"expert {m}" for m in experts), *(f"weight {m}" for m in experts)]
    names, labels = caught.dataset.file_names, caught.dataset.labels
    rows = []
    for position in caught.examples():
        estimates, weights = caught.expert_predictions[position], caught.expert_weights[position]
        rows.append(
            [
                names[position],
                round(float(labels[position]), 2),
                round(float(caught.ejection_fractions[position]), 2),
                *(None if np.isnan(estimates[m]) else round(float(estimates[m]), 2) for m in experts),
                *(round(float(weights[m]), 3) for m in experts),
            ]
        )
    return columns, rows


def tag(name: str) -> str:
    """Name a value as the Trainer names its metrics in a tracker: `eval_mae` becomes `eval/mae`."""
    return next(iter(rewrite_logs({name: None})))
