"""What experiment trackers get besides numbers: example predictions and the distribution of expert weights."""

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
    """What a model said about the videos of one evaluation; a few numbers per video are kept.

    Args:
        dataset: The clips that were evaluated, or their embeddings.
        ejection_fractions: EF in percent, mean of the clips of each video, shape (V,).
        expert_predictions: EF of every expert in percent, likewise, NaN where no clip consulted it, shape (V, M).
        expert_weights: Weight of every expert, likewise, shape (V, M).
        prefix: What the evaluation is called in the names of metrics.
        has_experts: Whether the experts made the prediction, which they do from stage 2 on.
    """

    dataset: EvaluationClips | EvaluationEmbeddings
    ejection_fractions: NDArray[np.float64]
    expert_predictions: NDArray[np.float64]
    expert_weights: NDArray[np.float64]
    prefix: str
    has_experts: bool

    def mean_weights(self) -> dict[str, float]:
        """Average the weight of every expert over the videos.

        Returns:
            Weight by name of metric; empty in stage 1, where no expert is asked.
        """
        means = self.expert_weights.mean(axis=0) if self.has_experts else []
        return {f"{self.prefix}_expert_{expert}_weight": float(mean) for expert, mean in enumerate(means)}

    def examples(self) -> NDArray[np.int64]:
        """Choose the videos to show: of every heart-failure category some, evenly from its lowest to its highest EF.

        Returns:
            Positions, ascending by EF, the same at every evaluation, shape (at most 3 * EXAMPLES_PER_CATEGORY,).
        """
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

    The values are caught on their way to the metrics, so nothing is computed twice and nothing is drawn at random. The
    names of the example videos go to the tracker with them. Without one of the two trackers it does nothing.

    Args:
        callbacks: All callbacks of the Trainer, among which those of the trackers are found.
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
        """Make the function for `compute_metrics` that also keeps what goes through it.

        Args:
            compute_metrics: Function of predicted ejection fractions; `None` stays that.
            dataset: What is evaluated; only clips of videos, or their embeddings, are kept.
            prefix: What the evaluation is called in the names of metrics.
            has_experts: Whether the experts make the prediction.

        Returns:
            Function of ejection fractions, expert predictions and expert weights.
        """
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
        """Send what the evaluation has left, then forget it.

        Args:
            args: Not used.
            state: State of the training.
            control: Not used.
            kwargs: Not used.
        """
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
    """Average the clips of each video.

    Args:
        ejection_fractions: EF in percent, shape (clips,).
        expert_predictions: EF of every expert in percent, NaN for one that was not consulted, shape (clips, M).
        expert_weights: Weight of every expert, shape (clips, M).
        dataset: The clips or their embeddings, in the same order.
        prefix: See `ValidationPredictions`, as for the next.
        has_experts: Whether the experts made the prediction.

    Returns:
        Means of the videos.
    """
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
    """Leave of a Trainer's predictions what its users expect.

    Args:
        predictions: Tuple of EF, expert predictions and expert weights, or a list of such tuples, one per batch.

    Returns:
        EF in percent, shape (clips,), or a list with that of every batch; anything else unchanged.
    """
    if isinstance(predictions, tuple):
        return predictions[0]
    return [only_ejection_fractions(batch) for batch in predictions] if isinstance(predictions, list) else predictions


def send_to_tensorboard(writer: Any, caught: ValidationPredictions, step: int) -> None:
    """Write a figure of the examples and, in stage 2, a histogram per expert.

    Args:
        writer: `SummaryWriter`.
        caught: What the model said.
        step: Training step.
    """
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
    """Log a table of the examples and, in stage 2, a histogram per expert, to the current run of trackio.

    Args:
        caught: What the model said.
        step: Training step.
    """
    import trackio

    if trackio.context_vars.current_run.get() is None:
        return
    logs: dict[str, Any] = {tag(f"{caught.prefix}_examples"): trackio.Table(*example_rows(caught))}
    for expert, weights in enumerate(caught.expert_weights.T if caught.has_experts else []):
        counts = np.histogram(weights, WEIGHT_BINS)
        logs[tag(f"{caught.prefix}_expert_{expert}_weight_distribution")] = trackio.Histogram(np_histogram=counts)
    trackio.log({**logs, "train/global_step": step})


def example_rows(caught: ValidationPredictions) -> tuple[list[str], list[list[Any]]]:
    """Lay the examples out as a table.

    Args:
        caught: What the model said.

    Returns:
        Names of the columns, and the rows; `None` for the EF of an expert that was not consulted, since the table
        becomes JSON, which has no NaN.
    """
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
    """Name a value as the Trainer names its metrics in a tracker: `eval_mae` becomes `eval/mae`.

    Args:
        name: Name with the prefix of the evaluation.

    Returns:
        Name with a slash.
    """
    return next(iter(rewrite_logs({name: None})))
