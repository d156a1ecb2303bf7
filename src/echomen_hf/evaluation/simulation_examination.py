"""Examination of a model on simulated hearts: errors, intervals, and use of motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress, spearmanr

from ..data.clip_dataset import FrameSource
from ..inference import VideoPrediction, make_engine, predict_split, predict_video
from ..labels import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES, category_masks
from ..metrics import AUROC_THRESHOLDS, ef_regression_metrics
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL
from ..model.echo_video_echomen import EchoVideo, cut_out_sector
from ..model.modeling_echomen import EchoMENModel
from ..model.prediction_interval_echomen import calibration_for
from ..model.video_processing_echomen import EchoMENVideoProcessor, as_size
from ..simulation import (
    SimulatedEcho,
    SimulatedFrames,
    SimulatedVideos,
    export_clip,
    sample_echo_parameters,
    sample_export_settings,
    simulate_echo,
)
from ..simulation.ejection_fraction_distribution import ejection_fraction_at
from ..simulation.fans import fan_mask, whole_fan_parameters
from .interval_calibration import calibrate_model, interval_metrics
from .motion_evidence import INVARIANCES, motion_evidence
from .report import MISSING_VALUE, markdown_table, results_table


__all__ = [
    "accuracy_section",
    "calibrate_on_simulation",
    "coverage_section",
    "examine_on_simulation",
    "experts_section",
    "motion_section",
]

IN_RANGE, HELD_OUT, EXPORT = "wide", "held_out_vendor", "export"

PROFILE_TITLES = {
    IN_RANGE: "machines as in training",
    HELD_OUT: "a machine never seen",
    EXPORT: "exports of screens, the fan cut out",
}

READER_ERROR = 4.0
"""Standard deviation of a reader's error in EF points."""

SECONDS = (1.3, 4.5)
"""Shortest and longest video: from a single clip to some more than most of EchoNet-Dynamic's."""

CALIBRATION_SEED_OFFSET = 7_000_003
TEST_SEED_OFFSET = 9_000_011

CHANGE_TITLES = {
    "backwards": "played backwards",
    "mirrored": "left and right exchanged",
    "half_frame_rate": "every second frame, half the frame rate",
    "brightness_0.6": "brightness times 0.6",
    "brightness_1.6": "brightness times 1.6",
}


def calibrate_on_simulation(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    *,
    num_videos: int = 3000,
    seed: int = 0,
    coverage: float = 0.9,
    num_workers: int = 0,
    progress: bool = True,
    training_changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Calibrate the prediction intervals of a model on simulated videos that no training has seen.

    Each video is shown in all ways of `PROFILE_TITLES`. The intervals are to hold the EF that a reader, who errs,
    would give on another machine and on exports of screens, and are calibrated to hold on each. Which embeddings are
    usual is learned from the machines of training, changed as there by `training_changes` (fields of
    `SimulatedFrames`), and from exports, so that the gate knows nothing of the other machine.
    """
    videos = examination_videos(num_videos, seed + CALIBRATION_SEED_OFFSET)
    # Way by way, for the gate measures every second video by the others: both halves are to be shown in all ways.
    shown = [{**row, "way": way} for way in PROFILE_TITLES for row in videos]
    return calibrate_model(
        model,
        processor,
        shown,
        coverage=coverage,
        num_workers=num_workers,
        progress=progress,
        frames=calibration_frames(processor, training_changes),
        readings=_readings(videos) * len(PROFILE_TITLES),
        error_groups=[None if row["way"] == IN_RANGE else row["way"] for row in shown],
        has_usual_embedding=[row["way"] != HELD_OUT for row in shown],
    )


def calibration_frames(processor: EchoMENVideoProcessor, training_changes: Mapping[str, Any] | None) -> _AllWays:
    """Source of the frames of `calibrate_on_simulation`."""
    shown = {way: simulated_frames(processor, way) for way in (HELD_OUT, EXPORT)}
    as_in_training = SimulatedFrames(IN_RANGE, as_size(processor.crop_size).height, **(training_changes or {}))
    return _AllWays({**shown, IN_RANGE: as_in_training})


@dataclass(frozen=True)
class _AllWays:
    """Frames of videos, shown in the way that their row names."""

    sources: Mapping[str, FrameSource]

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        return self.sources[row["way"]].read(row, indices)


@dataclass(frozen=True)
class _Exports:
    """Frames of simulated videos that were put on screens at random, from which the finder cut the fan out."""

    processor: EchoMENVideoProcessor

    def read(self, row: dict[str, Any], indices: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        echo, mask = simulate_whole_fan(row, np.random.default_rng(row["seed"]))
        settings = sample_export_settings(np.random.default_rng([*row["seed"], 6]))
        screen = export_clip(echo.frames, row["fps"], settings, mask).frames
        shown = cut_out_sector(EchoVideo(screen, row["fps"], row["file_name"])).frames
        return self.processor.resize_frames(shown if indices is None else shown[indices]).numpy()


def simulate_whole_fan(row: Mapping[str, Any], rng: np.random.Generator) -> tuple[SimulatedEcho, NDArray[np.bool_]]:
    """Simulate a video of a machine as in training that shows the whole fan, and tell the fan's pixels, `(H, W)`."""
    parameters = sample_echo_parameters(rng, row["ejection_fraction"], row["num_frames"], row["fps"], IN_RANGE)
    parameters, size, _ = whole_fan_parameters(parameters)
    return simulate_echo(rng, parameters=parameters, image_size=size), fan_mask(parameters, size)


def _readings(videos: SimulatedVideos) -> list[float]:
    """EF of videos in percent, as a reader with an error would give them."""
    errors = READER_ERROR * np.random.default_rng([videos.seed, 2]).standard_normal(len(videos))
    return np.clip(np.array(videos["ejection_fraction"]) + errors, 0, 100).tolist()


def examine_on_simulation(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    *,
    num_videos: int = 3000,
    num_motion_videos: int = 200,
    seed: int = 0,
    bootstrap_samples: int = 1000,
    num_workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a model on simulated videos that neither training nor calibration has seen.

    All ways of `PROFILE_TITLES` show the same hearts. Each heart-failure category has the same number of
    videos, and EchoNet-Dynamic's distribution within itself. The first `num_motion_videos` of them are also changed,
    see `motion_evidence`.
    """
    videos = examination_videos(num_videos, seed + TEST_SEED_OFFSET)
    labels = np.array(videos["ejection_fraction"])
    engine = make_engine(model, "torch", processor=processor)
    predicted = {"constant_guess": np.full(len(labels), _echonet_mean())}
    experts: dict[str, Any] | None = {} if model.config.prediction_head == "experts" else None
    for profile in PROFILE_TITLES:
        predictions = predict_split(
            model,
            processor,
            videos,
            num_workers=num_workers,
            progress=progress,
            engine=engine,
            frames=simulated_frames(processor, profile),
        )
        predicted[profile] = np.array([prediction.ejection_fraction for prediction in predictions])
        if experts is not None:
            experts[profile] = expert_gain(predictions, labels)
    accuracy = {
        name: ef_regression_metrics(values, labels, bootstrap_samples=bootstrap_samples, seed=seed)
        for name, values in predicted.items()
    }
    calibration = calibration_for(model.config, DEFAULT_PROTOCOL)
    return {
        "settings": {
            "bootstrap_samples": bootstrap_samples,
            "num_motion_videos": min(num_motion_videos, num_videos),
            "num_videos": num_videos,
            "protocol": DEFAULT_PROTOCOL,
            "reader_error": READER_ERROR,
            "seconds": list(SECONDS),
            "seed": seed,
        },
        "accuracy": accuracy,
        "echonet_mae": {name: echonet_weighted(metrics) for name, metrics in accuracy.items()},
        "calibration": calibration,
        "experts": experts,
        "slope": {name: float(linregress(labels, predicted[name]).slope) for name in PROFILE_TITLES},
        "spearman": {name: float(spearmanr(predicted[name], labels).statistic) for name in PROFILE_TITLES},
        "held_out_ratio": accuracy[HELD_OUT]["mae"] / accuracy[IN_RANGE]["mae"],
        "intervals": {
            profile: interval_metrics(predicted[profile], _readings(videos), calibration) for profile in PROFILE_TITLES
        }
        if calibration
        else None,
        "motion": _motion(model, processor, engine, videos, min(num_motion_videos, num_videos)),
    }


def expert_gain(predictions: Sequence[VideoPrediction], labels: NDArray[np.float64]) -> dict[str, Any]:
    """Measure what the aggregator adds to the experts.

    Args:
        predictions: Predictions of videos.
        labels: Their EF in percent, shape (N,).

    Returns:
        Balanced MAE of the aggregated estimate, of the mean of the experts, of each expert and of the stage-1 head;
        mean and standard deviation of every expert's weight over the videos.
    """
    weights = np.array([prediction.expert_weights for prediction in predictions])  # (N, M)
    estimates = np.array([prediction.expert_predictions for prediction in predictions])

    def error(values: Sequence[float] | NDArray[np.float64]) -> float:
        return ef_regression_metrics(values, labels)["balanced_mae"]

    return {
        "balanced_mae": error([prediction.ejection_fraction for prediction in predictions]),
        "of_mean": error(estimates.mean(axis=1)),
        "of_expert": [error(column) for column in estimates.T],
        "of_regression_head": error([prediction.regression for prediction in predictions]),
        "mean_weight": weights.mean(axis=0).tolist(),
        "weight_sd": weights.std(axis=0).tolist(),
    }


def examination_videos(num_videos: int, seed: int) -> SimulatedVideos:
    """Return simulated videos, a third of each heart-failure category."""
    return SimulatedVideos(num_videos, seed, "categories", SECONDS)


def simulated_frames(processor: EchoMENVideoProcessor, profile: str) -> FrameSource:
    """Source of the frames of simulated videos at the size of a processor, shown in a way of `PROFILE_TITLES`."""
    if profile == EXPORT:
        return _Exports(processor)
    return SimulatedFrames(profile, image_size=as_size(processor.crop_size).height)


def echonet_weighted(metrics: Mapping[str, float]) -> float:
    """Weigh the MAEs of the categories by their shares in EchoNet-Dynamic."""
    masks = category_masks(_echonet_sample())
    return float(sum(masks[name].mean() * metrics[f"mae_{name}"] for name in HEART_FAILURE_CATEGORIES))


def _echonet_sample() -> np.ndarray:
    return ejection_fraction_at((np.arange(7465) + 0.5) / 7465)


def _echonet_mean() -> float:
    return float(_echonet_sample().mean())


def _motion(
    model: EchoMENModel, processor: EchoMENVideoProcessor, engine: Any, videos: SimulatedVideos, count: int
) -> dict[str, dict[str, float]]:
    source = simulated_frames(processor, IN_RANGE)
    # Categories are in random order, so the first rows are a fair sample.
    rows = [videos[index] for index in range(count)]
    clips = (EchoVideo(source.read(row), row["fps"], row["file_name"]) for row in rows)
    found = motion_evidence(
        lambda video: predict_video(model, processor, video, engine=engine).ejection_fraction, clips
    )
    still, unchanged = found.pop("still"), found.pop("unchanged")
    measured = {"still": {"mean": float(still.mean()), "p90": float(np.quantile(still, 0.9))}}
    for name, values in found.items():
        change = np.abs(values - unchanged)
        measured[name] = {"mean": float(change.mean()), "p90": float(np.quantile(change, 0.9))}
    return measured


def accuracy_section(examination: Mapping[str, Any]) -> str:
    """Format the errors as Markdown."""
    accuracy = examination["accuracy"]
    titles = {"constant_guess": f"always {_echonet_mean():.1f} %", **PROFILE_TITLES}
    errors = results_table(
        {title: accuracy[name] for name, title in titles.items()},
        metrics=("balanced_mae", "mae"),
        unranked=list(titles.values()),
    )
    thresholds = [f"{threshold:g}" for threshold in AUROC_THRESHOLDS]
    further = markdown_table(
        ["Method", "MAE at EchoNet's shares", "Spearman", *(f"AUROC EF < {threshold}" for threshold in thresholds)],
        [
            [
                title,
                f"{examination['echonet_mae'][name]:.2f}",
                f"{examination['spearman'][name]:.3f}" if name in examination["spearman"] else MISSING_VALUE,
                *(f"{accuracy[name][f'auroc_ef_below_{threshold}']:.3f}" for threshold in thresholds),
            ]
            for name, title in titles.items()
        ],
    )
    categories = [CATEGORY_TITLES[name] for name in HEART_FAILURE_CATEGORIES]
    biases = markdown_table(
        ["Bias (EF points) and slope", *categories, "Slope of the estimate over EF"],
        [
            [
                title,
                *(f"{accuracy[name][f'bias_{category}']:+.1f}" for category in HEART_FAILURE_CATEGORIES),
                f"{examination['slope'][name]:.2f}",
            ]
            for name, title in PROFILE_TITLES.items()
        ],
    )
    further += f"\n\n{biases}"
    ratio = examination["held_out_ratio"]
    return f"{errors}\n\n{further}\n\nThe MAE on the machine never seen is {ratio:.2f} times the one on the others."


def experts_section(examination: Mapping[str, Any]) -> str:
    """Format what the aggregator adds to the experts as Markdown."""
    if examination["experts"] is None:
        return "The model has no trained experts."
    numbers = range(1, len(examination["experts"][IN_RANGE]["of_expert"]) + 1)
    header = ["Balanced MAE", "aggregated", "mean of experts", *(f"expert {number}" for number in numbers)]
    header += ["stage-1 head", *(f"weight {number}" for number in numbers)]
    rows = []
    for name, title in PROFILE_TITLES.items():
        found = examination["experts"][name]
        errors = [found["balanced_mae"], found["of_mean"], *found["of_expert"], found["of_regression_head"]]
        weights = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in zip(found["mean_weight"], found["weight_sd"], strict=True)]
        rows.append([title, *(f"{error:.2f}" for error in errors), *weights])
    return markdown_table(header, rows)


def coverage_section(examination: Mapping[str, Any]) -> str:
    """Format the coverage of the prediction intervals as Markdown."""
    if examination["calibration"] is None:
        return "The model has no calibrated intervals."
    rows = []
    for profile, title in PROFILE_TITLES.items():
        found = examination["intervals"][profile]
        shares = [
            f"{found[name]['coverage']:.1%}" if name in found else MISSING_VALUE for name in HEART_FAILURE_CATEGORIES
        ]
        rows.append([title, *shares, f"{found['all']['width']:.1f}"])
    titles = [CATEGORY_TITLES[name] for name in HEART_FAILURE_CATEGORIES]
    header = [
        f"Readings within the {examination['calibration']['coverage']:.0%} interval",
        *titles,
        "Mean width (EF points)",
    ]
    return markdown_table(header, rows)


def motion_section(examination: Mapping[str, Any]) -> str:
    """Format how estimates change with the clips as Markdown."""
    still = examination["motion"]["still"]
    rows = [
        [
            CHANGE_TITLES[name],
            f"{examination['motion'][name]['mean']:.2f}",
            f"{examination['motion'][name]['p90']:.2f}",
        ]
        for name in INVARIANCES
    ]
    table = markdown_table(["Change of the clip", "mean change of EF (points)", "90th percentile"], rows)
    return (
        f"{table}\n\nA still clip, its first frame repeated, is given an EF of {still['mean']:.1f} % on average, and "
        f"of {still['p90']:.1f} % or less in 90 % of the clips."
    )
