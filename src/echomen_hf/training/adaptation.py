"""Adaptation of a model to the few videos of one site, and what it brings on videos that it was not fitted to."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.clip_dataset import EvaluationClips
from ..evaluation.interval_calibration import embedding_distribution
from ..inference import predict_split
from ..metrics import ef_regression_metrics
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibrate_intervals
from ..model.video_processing_echomen import EchoMENVideoProcessor
from .arguments import EchoMENTrainingArguments
from .embeddings import EvaluationEmbeddings, embed
from .fitting import fit
from .head_adaptation import (
    HEAD_ADAPTATIONS,
    assign_folds,
    heads_of,
    predict_embeddings,
    subset,
    video_embeddings,
)


__all__ = ["ADAPTATIONS", "MIN_VIDEOS", "Adaptation", "adapt_model"]

MIN_VIDEOS = 30
"""Fewest videos to adapt to."""

MIN_VIDEOS_OF_DISTRIBUTION = 100
"""Fewest videos that say which distance from them is usual, which one video in a hundred exceeds."""

AS_IS, FINE_TUNED = "as_is", "finetune"
ADAPTATIONS = (AS_IS, *HEAD_ADAPTATIONS, FINE_TUNED)
"""Ways to adapt a model; the first is not to."""

FloatArray = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Adaptation:
    """What the ways to adapt a model brought.

    Args:
        chosen: The way that was taken.
        results: For every way, on held-out videos and in EF points: `mae`, `bias`, `balanced_mae` (NaN if a category
            is missing), `change` of the MAE against the model as it is, and the ends of the 95 % intervals
            `mae_ci_low`, `mae_ci_high`, `change_ci_low` and `change_ci_high`.
        num_videos: Number of videos.
        num_patients: Number of patients, or of videos if the patients are not known.
    """

    chosen: str
    results: Mapping[str, Mapping[str, float]]
    num_videos: int
    num_patients: int


def adapt_model(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    args: EchoMENTrainingArguments,
    *,
    patients: Sequence[str] | None = None,
    method: str | None = None,
    finetune: bool = False,
    crop_padding: int = 12,
    protocol: str = DEFAULT_PROTOCOL,
    num_folds: int = 5,
    coverage: float = 0.9,
    bootstrap_samples: int = 2000,
) -> tuple[EchoMENModel, Adaptation]:
    """Find the best way to adapt a model to the videos of one site, and adapt it to all of them.

    Every way is fitted to all folds but one and measured on that one, in turn. A way helps if the 95 % interval of the
    change of the mean absolute error lies below 0. Of those that help, the one with the smallest balanced error is
    taken, or the smallest error if a heart-failure category is missing; if none does, the model stays as it is. The
    prediction intervals of the result are calibrated on the errors in the held-out folds.

    All videos are estimated, whatever their quality. If there are 100 or more and the encoder stays, the result takes
    videos like these for usual ones, and otherwise those that the model took. After fine-tuning, it takes none for
    unusual until it is calibrated on videos outside the training.

    Args:
        model: Model; it is not changed.
        processor: Its video processor.
        videos: Rows as `load_videos` returns them.
        args: Device and batch size for the encoder, which runs once, the seed, and the arguments of fine-tuning.
        patients: Patient of every video, all of whose videos are in one fold. Defaults to one patient for each.
        method: Way to take, whether it helps or not.
        finetune: Whether to try fine-tuning too, which trains once per fold.
        crop_padding: Largest random shift of a clip in fine-tuning, in pixels.
        protocol: Clips of a video, see `protocol_starts`.
        num_folds: Number of folds.
        coverage: Share of the videos that prediction intervals are to hold.
        bootstrap_samples: Resamples of patients, for the 95 % intervals.

    Returns:
        The adapted model, and what each way brought.

    Raises:
        ValueError: If there are too few videos or patients, or the way is unknown.
    """
    if len(videos) < MIN_VIDEOS:
        raise ValueError(
            f"There are {len(videos)} videos to adapt to. At least {MIN_VIDEOS} are needed; with fewer, chance would "
            "decide."
        )
    ways = [name for name in ADAPTATIONS if name != FINE_TUNED or finetune or method == FINE_TUNED]
    if method is not None and method not in ways:
        raise ValueError(f"There is no way {method!r} to adapt a model; choose from {', '.join(ADAPTATIONS)}.")
    clips = EvaluationClips(videos, processor, protocol)
    named = np.arange(len(videos)) if patients is None else np.asarray(patients)
    groups = np.unique(named, return_inverse=True)[1]
    folds = assign_folds(clips.labels, groups, num_folds, args.seed)
    site = _Site(model, processor, videos, groups, clips, args, crop_padding, protocol)
    predictions = {}
    for name in ways:
        predictions[name] = np.full(len(videos), np.nan)
        for fold in range(num_folds):
            train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            predictions[name][held_out] = site.adapt(name, train).predict(held_out)
    results = _compare(predictions, clips.labels, groups, bootstrap_samples, args.seed)
    chosen = method or choose_way(results)
    adapted = site.adapt(chosen, np.arange(len(videos))).model()
    intervals = calibrate_intervals(predictions[chosen], clips.labels, coverage)
    adapted.config.interval_calibration = {**intervals, "protocol": clips.protocol}
    if chosen != FINE_TUNED and len(videos) >= MIN_VIDEOS_OF_DISTRIBUTION:
        adapted.set_training_distribution(*embedding_distribution(video_embeddings(site.data)))
    return adapted.eval(), Adaptation(chosen, results, len(videos), int(groups.max()) + 1)


def choose_way(results: Mapping[str, Mapping[str, float]]) -> str:
    """Choose the best of the ways that help."""
    # Most hearts are normal: what helps them may do harm to the few weak ones.
    measure = "mae" if np.isnan(results[AS_IS]["balanced_mae"]) else "balanced_mae"
    helping = [name for name, values in results.items() if values["change_ci_high"] < 0]
    return min(helping, key=lambda name: results[name][measure], default=AS_IS)


@dataclass(frozen=True)
class _Adapted:
    """An adapted model: its predictions of videos, by position, and itself."""

    predict: Callable[[Positions], FloatArray]
    model: Callable[[], EchoMENModel]


class _Site:
    """Videos of a site and their embeddings, which are computed once."""

    def __init__(
        self,
        model: EchoMENModel,
        processor: EchoMENVideoProcessor,
        videos: Sequence[dict[str, Any]],
        groups: Positions,
        clips: EvaluationClips,
        args: EchoMENTrainingArguments,
        crop_padding: int,
        protocol: str,
    ) -> None:
        self.base, self.processor, self.videos, self.groups = model, processor, videos, groups
        self.args, self.crop_padding, self.protocol = args, crop_padding, protocol
        embeddings = embed(model, clips, args, "videos")
        self.data = EvaluationEmbeddings(embeddings, clips.video_index, clips.labels, clips.file_names)
        self.heads = heads_of(model)

    def adapt(self, name: str, positions: Positions) -> _Adapted:
        """Adapt a copy of the model to some of the videos."""
        if name == FINE_TUNED:
            tuned = self._fine_tune(positions)
            return _Adapted(lambda chosen: self._predict(tuned, chosen), lambda: tuned)
        heads = copy.deepcopy(self.heads)
        if name != AS_IS:
            HEAD_ADAPTATIONS[name](heads, subset(self.data, positions), self.groups[positions], self.args.seed)

        def whole_model() -> EchoMENModel:
            model = copy.deepcopy(self.base)
            model.load_state_dict(heads.state_dict(), strict=False)
            model.config.recalibration = heads.config.recalibration
            return model

        return _Adapted(lambda chosen: predict_embeddings(heads, subset(self.data, chosen)), whole_model)

    def _predict(self, model: EchoMENModel, positions: Positions) -> FloatArray:
        rows = [self.videos[position] for position in positions.tolist()]
        batch_size = self.args.per_device_eval_batch_size
        found = predict_split(model, self.processor, rows, self.protocol, batch_size, progress=False)
        return np.array([prediction.ejection_fraction for prediction in found])

    def _fine_tune(self, positions: Positions) -> EchoMENModel:
        """Train on four fifths of some videos; the others choose the epoch."""
        inner = assign_folds(self.data.labels[positions], self.groups[positions], 5, self.args.seed)
        train, val = ([self.videos[i] for i in positions[mask].tolist()] for mask in (inner > 0, inner == 0))
        has_experts = self.base.config.prediction_head == "experts"
        with tempfile.TemporaryDirectory(prefix="echomen_hf_") as folder:
            args = self.args.replace(stage="both" if has_experts else "1", output_dir=str(Path(folder) / "run"))
            return fit(copy.deepcopy(self.base), self.processor, train, val, args, crop_padding=self.crop_padding).to(
                self.base.device
            )


def _compare(
    predictions: Mapping[str, FloatArray], labels: FloatArray, groups: Positions, samples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Measure every way, and its change against the model as it is, with intervals over patients."""
    results = {}
    for name, predicted in predictions.items():
        metrics = ef_regression_metrics(predicted, labels)
        errors, before = np.abs(predicted - labels), np.abs(predictions[AS_IS] - labels)
        results[name] = {key: metrics[key] for key in ("mae", "bias", "balanced_mae")}
        results[name]["change"] = float((errors - before).mean())
        for key, values in (("mae", errors), ("change", errors - before)):
            ends = _interval_of_mean(values, groups, samples, seed)
            results[name].update(zip((f"{key}_ci_low", f"{key}_ci_high"), ends))
    return results


def _interval_of_mean(values: FloatArray, groups: Positions, samples: int, seed: int) -> tuple[float, float]:
    """Find the 95 % bootstrap interval of a mean over videos; patients are drawn, with all their videos."""
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(samples, len(sums)))  # (samples, patients)
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
