"""Figure of single videos: reference, prediction, and the estimate and weight of every expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ..figure_style import NEUTRAL_COLOUR, SeriesStyle, label_ef_axis, new_figure, shade_categories, styled


__all__ = ["example_predictions_figure"]

_ROW_INCHES = 0.3
_LONGEST_NAME = 22
_BELOW_PREDICTION = 0.3  # of a row, so that the prediction does not cover experts who agree


@styled
def example_predictions_figure(
    names: Sequence[str],
    references: ArrayLike,
    predictions: ArrayLike,
    expert_predictions: ArrayLike | None = None,
    expert_weights: ArrayLike | None = None,
    *,
    subtitle: str | None = None,
) -> Figure:
    """Draw one row for every video: EF on the left and, with experts, their shares of it on the right."""
    expected, predicted = np.asarray(references, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if not len(names) == len(expected) == len(predicted) or len(names) == 0:
        raise ValueError(
            f"Every video needs a name, a reference and a prediction: got {len(names)}, {len(expected)} and "
            f"{len(predicted)}."
        )
    has_experts = expert_predictions is not None and expert_weights is not None
    height = 1.7 + _ROW_INCHES * len(names)
    figure = new_figure("Predictions of single videos", subtitle, width=8.5 if has_experts else 6.5, height=height)
    panels = figure.subplots(
        1, 1 + has_experts, sharey=True, squeeze=False, width_ratios=(3, 1) if has_experts else None
    )[0]
    rows = np.arange(len(names))
    shade_categories(panels[0])
    panels[0].hlines(rows, np.minimum(expected, predicted), np.maximum(expected, predicted), color=NEUTRAL_COLOUR)
    if has_experts:
        estimates, weights = (np.asarray(values, dtype=np.float64) for values in (expert_predictions, expert_weights))
        for expert, (column, share) in enumerate(zip(estimates.T, weights.T, strict=True)):
            look = SeriesStyle(expert)
            panels[0].scatter(
                column,
                rows + _BELOW_PREDICTION,
                s=6 + 40 * share,
                marker=look.marker,
                color=look.colour,
                linewidths=0,
                label=f"expert {expert} (larger: more weight)",
            )
        _draw_shares(panels[1], rows, weights)
    panels[0].scatter(predicted, rows, s=34, color="black", zorder=3, label="prediction")
    panels[0].scatter(expected, rows, s=150, marker="|", color="black", linewidths=2, zorder=3, label="reference")
    panels[0].set_yticks(rows, [_short(name) for name in names])
    panels[0].invert_yaxis()
    label_ef_axis(panels[0], "Ejection fraction (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if has_experts else 2)
    return figure


def _draw_shares(panel: Axes, rows: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    begin = np.zeros(len(rows))
    for expert, share in enumerate(weights.T):
        panel.barh(rows, share, left=begin, height=0.6, color=SeriesStyle(expert).colour, linewidth=0)
        begin += share
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.5, 1])
    panel.set_xlabel("Weight of each expert")
    panel.grid(False)


def _short(name: str) -> str:
    stem = PurePath(name).stem
    return stem if len(stem) <= _LONGEST_NAME else f"{stem[: _LONGEST_NAME - 1]}…"
