"""Adaptation of a model's heads to the embeddings of videos."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import nn

from ..labels import EF_RANGE, ExpertWeightTable
from ..model.heads_echomen import EchoMENRegressionHead
from ..model.modeling_echomen import EchoMENModel
from ..model.video_prediction_echomen import average_clips, estimate_embeddings
from .embeddings import EvaluationEmbeddings
from .expert_solution import solve_experts


__all__ = ["HEAD_ADAPTATIONS", "assign_folds", "heads_of", "predict_embeddings", "subset", "video_embeddings"]

INNER_FOLDS = 3
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Penalties of a change of the experts, in variances of a feature, of which inner folds choose one."""

FloatArray = NDArray[np.float64]
Positions = NDArray[np.int64]


def assign_folds(labels: FloatArray, groups: Positions, num_folds: int, seed: int) -> Positions:
    """Give every video a fold: patients stay together, and every fold has hearts of all ejection fractions."""
    patients, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    num_groups = len(patients)
    if not 2 <= num_folds <= num_groups:
        raise ValueError(
            f"Videos of {num_groups} patients cannot be divided into {num_folds} folds: there must be at least 2 "
            "folds, and as many patients."
        )
    order = np.argsort(np.bincount(group, weights=labels) / counts, kind="stable")
    generator = np.random.default_rng(seed)
    rounds = [generator.permutation(num_folds) for _ in range(-(-num_groups // num_folds))]
    folds = np.empty(num_groups, dtype=np.int64)
    folds[order] = np.concatenate(rounds)[:num_groups]
    return folds[group]


def heads_of(model: EchoMENModel) -> EchoMENModel:
    """Copy a model without its encoder, to the CPU; it takes embeddings."""
    copied = copy.copy(model)
    # The copy shares all but its dictionary of parts with the model.
    copied._modules = {**model._modules, "encoder": nn.Identity()}
    return copy.deepcopy(copied).cpu().eval()


def subset(data: EvaluationEmbeddings, positions: Positions) -> EvaluationEmbeddings:
    """Take the embeddings of some videos."""
    place = np.full(len(data.labels), -1)
    place[positions] = np.arange(len(positions))
    index = place[data.video_index]
    order = np.argsort(index, kind="stable")[(index < 0).sum() :]
    names = [data.file_names[position] for position in positions.tolist()]
    return EvaluationEmbeddings(data.embeddings[torch.from_numpy(order)], index[order], data.labels[positions], names)


def video_embeddings(data: EvaluationEmbeddings) -> FloatArray:
    """Average the embeddings of the clips of every video, (clips, D) -> (N, D)."""
    starts = np.searchsorted(data.video_index, np.arange(len(data.labels)))
    sums = np.add.reduceat(data.embeddings.double().numpy(), starts)
    return sums / np.bincount(data.video_index)[:, None]


def predict_embeddings(heads: EchoMENModel, data: EvaluationEmbeddings) -> FloatArray:
    """Predict every video from the embeddings of its clips, whatever its quality."""
    estimates = estimate_embeddings(heads, data.embeddings)
    ends = np.searchsorted(data.video_index, np.arange(len(data.labels) + 1)).tolist()
    clips = ({key: values[start:end] for key, values in estimates.items()} for start, end in zip(ends, ends[1:]))
    return np.array([average_clips("", each, force=True).ejection_fraction for each in clips])


def uncorrected(heads: EchoMENModel, data: EvaluationEmbeddings) -> FloatArray:
    """Predict without a recalibration, which is removed, and without the rounding that no curve should follow."""
    heads.config.recalibration = None
    return predict_embeddings(heads, data).round(2)


def fit_line(heads: EchoMENModel, data: EvaluationEmbeddings, groups: Positions, seed: int) -> None:
    """Recalibrate by slope and offset, the least squares fit of the labels to the predictions."""
    predicted = uncorrected(heads, data)
    spread = predicted.var()
    covariance = ((predicted - predicted.mean()) * (data.labels - data.labels.mean())).mean()
    slope = max(covariance / spread, 0.0) if spread > 0 else 0.0
    ends = np.array(EF_RANGE)
    corrected = data.labels.mean() + slope * (ends - predicted.mean())
    heads.config.recalibration = {"predicted": ends.tolist(), "corrected": corrected.tolist()}


def fit_isotonic(heads: EchoMENModel, data: EvaluationEmbeddings, groups: Positions, seed: int) -> None:
    """Recalibrate by the rising curve with the least squared error."""
    predicted, index, counts = np.unique(uncorrected(heads, data), return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=data.labels) / counts
    corrected = isotonic_regression(means, weights=counts).x
    # Inside a step, the points between its ends say nothing.
    kept = np.ones(len(corrected), dtype=bool)
    kept[1:-1] = (corrected[1:-1] != corrected[:-2]) | (corrected[1:-1] != corrected[2:])
    points, values = predicted[kept].tolist(), corrected[kept].tolist()
    if len(points) == 1:
        points, values = list(EF_RANGE), values * 2
    heads.config.recalibration = {"predicted": points, "corrected": values}


def refit_experts(heads: EchoMENModel, data: EvaluationEmbeddings, groups: Positions, seed: int) -> None:
    """Move the experts, or the head of stage 1, to where they fit the videos, no farther than inner folds bear out.

    Every expert has its sample weights of stage 2. The penalty is on the change of its weights, so that few videos
    leave a model much as it is. The aggregator stays.
    """
    heads.config.recalibration = None
    folds = assign_folds(data.labels, groups, INNER_FOLDS, seed)
    errors = []
    for strength in STRENGTHS:
        total = 0.0
        for fold in range(INNER_FOLDS):
            inner = copy.deepcopy(heads)
            move_experts(inner, subset(data, np.flatnonzero(folds != fold)), strength)
            held_out = subset(data, np.flatnonzero(folds == fold))
            total += float(((predict_embeddings(inner, held_out) - held_out.labels) ** 2).sum())
        errors.append(total)
    move_experts(heads, data, STRENGTHS[int(np.argmin(errors))])


@torch.no_grad()
def move_experts(heads: EchoMENModel, data: EvaluationEmbeddings, strength: float) -> None:
    """Add to every expert the penalised least squares fit of what it leaves of the labels."""
    config = heads.config
    has_experts = config.prediction_head == "experts"
    moved = cast(list[EchoMENRegressionHead], list(heads.experts) if has_experts else [heads.regression_head])
    table = ExpertWeightTable(data.labels, len(moved), config.expert_bin_width, config.expert_min_count)
    # A video counts once, however many clips it has.
    clips = np.bincount(data.video_index, minlength=len(data.labels))
    weights = torch.from_numpy((table(data.labels) / clips[:, None])[data.video_index])  # (clips, M)
    labels = torch.from_numpy(data.labels[data.video_index])
    embeddings = heads.head_input(data.embeddings)
    penalty = 2 * strength * float(embeddings.double().var(dim=0).mean()) * len(clips) / len(labels)
    for expert, weight in zip(moved, weights.unbind(dim=1)):
        rest = labels - expert(embeddings).squeeze(-1).double()
        change, offset = solve_experts(embeddings, rest, weight[:, None], penalty)
        expert.weight.add_(change)
        expert.bias.add_(offset)


HEAD_ADAPTATIONS: dict[str, Callable[[EchoMENModel, EvaluationEmbeddings, Positions, int], None]] = {
    "linear": fit_line,
    "isotonic": fit_isotonic,
    "experts": refit_experts,
}
"""By name, what changes the heads of a model by embeddings, patients of their videos and a seed."""
