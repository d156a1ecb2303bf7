"""Figures of the paper and a Bland-Altman plot.

`references` and predictions are EFs in percent, shape (N,). `predictions` by name are drawn in their order. `subtitle`
is a line below the title. Values that `ef_regression_metrics` refuses, and nothing to draw, raise a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from ..figure_style import (
    CATEGORY_COLOURS,
    COUNT_COLOUR,
    NEUTRAL_COLOUR,
    STYLE,
    SeriesStyle,
    label_ef_axis,
    legend_below,
    mark_category_boundaries,
    new_figure,
    shade_categories,
    styled,
)
from ..labels import (
    CATEGORY_TITLES,
    EF_RANGE,
    HEART_FAILURE_CATEGORIES,
    ExpertWeightTable,
    bin_counts,
    category_masks,
    num_label_bins,
)
from ..metrics import (
    BandErrors,
    bland_altman_limits,
    ef_regression_metrics,
    error_by_band,
    regression_line,
    validate_predictions,
)


__all__ = [
    "bland_altman_figure",
    "draw_band_counts",
    "error_by_band_figure",
    "expert_mae_figure",
    "label_distribution_figure",
    "sample_weight_figure",
    "save_figures",
    "scatter_figure",
]


@styled
def label_distribution_figure(
    labels: Mapping[str, ArrayLike], *, bin_width: float = 2.0, subtitle: str | None = None
) -> Figure:
    """Draw how many videos of each split have which ejection fraction (figure 1b of the paper).

    Args:
        labels: Split name to EF in percent, shape (N,); one panel per split.
        bin_width: Width of a bar in EF points.
        subtitle: Line below the title, for instance the name of the data set.
    """
    _require(labels, "label_distribution_figure needs the labels of at least one split.")
    figure = new_figure("Distribution of ejection fractions", subtitle, width=7.5, height=1.0 + 1.9 * len(labels))
    axes = np.atleast_1d(figure.subplots(len(labels), 1, sharex=True))
    for panel, (split, split_labels) in zip(axes, labels.items(), strict=True):
        values = np.asarray(split_labels, dtype=np.float64)
        _require(values, f"Split {split!r} has no labels to draw.")
        masks = category_masks(values)
        floor = np.zeros(num_label_bins(bin_width))
        for category in HEART_FAILURE_CATEGORIES:
            # Stacked, so that a bar which straddles a boundary shows both of its parts.
            counts = bin_counts(values[masks[category]], bin_width)
            panel.bar(
                bin_width * np.arange(len(counts)),
                counts,
                width=bin_width,
                bottom=floor,
                align="edge",
                color=CATEGORY_COLOURS[category],
                edgecolor="white",
                linewidth=0.3,
                label=CATEGORY_TITLES[category],
            )
            floor += counts
        shares = [
            f"{CATEGORY_TITLES[category]} {masks[category].sum():,} ({masks[category].mean():.1%})"
            for category in HEART_FAILURE_CATEGORIES
        ]
        panel.set_title(f"{split}, n = {values.size:,}: {', '.join(shares)}", loc="left")
        panel.set_ylabel(f"Videos per {bin_width:g} points")
        panel.set_ylim(0, 1.05 * floor.max())
        mark_category_boundaries(panel)
    label_ef_axis(axes[-1], "Ejection fraction (%)")
    legend_below(figure, axes[-1])
    return figure


@styled
def error_by_band_figure(
    predictions: Mapping[str, ArrayLike],
    references: ArrayLike,
    *,
    band_width: float = 10.0,
    subtitle: str | None = None,
) -> Figure:
    """Draw the mean squared error per band of reference EF for several methods (figure 1c of the paper).

    Bands are `band_width` EF points wide. A panel below shows how many videos each band has.
    """
    _require(predictions, "error_by_band_figure needs the predictions of at least one method.")
    figure = new_figure("Error along the range of ejection fractions", subtitle, width=7.5, height=5.4)
    errors_panel, counts_panel = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for position, (name, values) in enumerate(predictions.items()):
        bands = error_by_band(values, references, band_width=band_width, error="mse")
        look = SeriesStyle(position)
        errors_panel.plot(
            (bands.lower + bands.upper) / 2,
            bands.errors,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=5,
            label=name,
        )
    errors_panel.set_ylabel("Mean squared error\n(squared EF points)")
    errors_panel.set_ylim(bottom=0)
    shade_categories(errors_panel)

    draw_band_counts(counts_panel, bands, band_width)
    legend_below(figure, errors_panel)
    return figure


def draw_band_counts(panel: Axes, bands: BandErrors, band_width: float) -> None:
    """Draw how many videos each band has."""
    bars = panel.bar(
        bands.lower, bands.counts, width=bands.upper - bands.lower, align="edge", color=COUNT_COLOUR, edgecolor="white"
    )
    panel.bar_label(bars, labels=[f"{count}" if count else "" for count in bands.counts], fontsize=8)
    panel.set_ylim(0, 1.3 * bands.counts.max())
    panel.set_ylabel("Videos")
    mark_category_boundaries(panel)
    label_ef_axis(panel, f"Reference ejection fraction (%), bands of {band_width:g} points")


@styled
def sample_weight_figure(
    weight_table: ExpertWeightTable, *, train_labels: ArrayLike | None = None, subtitle: str | None = None
) -> Figure:
    """Draw the sample weight of every label bin for every expert (equation 4 and figure 2d of the paper).

    Args:
        weight_table: Weights of the experts, made from the training labels.
        train_labels: EF in percent of the training set, shape (N,); if given, a panel below shows their counts.
        subtitle: Line below the title.
    """
    panels = 1 if train_labels is None else 2
    figure = new_figure(
        "Sample weight of each expert", subtitle, width=7.5, height=4.0 if train_labels is None else 5.2
    )
    axes = np.atleast_1d(figure.subplots(panels, 1, sharex=True, height_ratios=(3, 1)[:panels]))
    width = weight_table.bin_width
    edges = np.minimum(EF_RANGE[0] + width * np.arange(num_label_bins(width) + 1), EF_RANGE[1])
    for expert, exponent in enumerate(weight_table.exponents):
        axes[0].stairs(
            weight_table.weights[:, expert],
            edges,
            baseline=None,
            color=SeriesStyle(expert).colour,
            linestyle=SeriesStyle(expert).line,
            linewidth=1.8,
            label=f"Expert {expert} (p = {exponent:.3g})",
        )
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda weight, _: f"{weight:g}"))
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("Weight (training mean = 1)")
    shade_categories(axes[0])
    if train_labels is not None:
        counts = bin_counts(train_labels, width)
        axes[1].stairs(counts, edges, fill=True, color=COUNT_COLOUR)
        axes[1].set_ylabel("Videos")
        axes[1].set_ylim(0, 1.1 * counts.max())
        mark_category_boundaries(axes[1])
    label_ef_axis(axes[-1], f"Ejection fraction (%), bins of {width:g} point{'' if width == 1 else 's'}")
    legend_below(figure, axes[0])
    return figure


@styled
def scatter_figure(
    predictions: Mapping[str, ArrayLike], references: ArrayLike, *, subtitle: str | None = None
) -> Figure:
    """Draw predicted against reference EF with the least-squares line of each method (figure 3a of the paper).

    Every method has a panel. If all references are equal, no line can be fitted, which raises a `ValueError`.
    """
    _require(predictions, "scatter_figure needs the predictions of at least one method.")
    figure = new_figure(
        "Predicted against reference ejection fraction", subtitle, width=max(4.2 * len(predictions), 5.0), height=5.4
    )
    panels = np.atleast_1d(figure.subplots(1, len(predictions), sharex=True, sharey=True))
    for position, (panel, (name, values)) in enumerate(zip(panels, predictions.items(), strict=True)):
        predicted, reference = validate_predictions(values, references)
        if np.ptp(reference) == 0:
            raise ValueError(f"All references equal {reference[0]}; a least-squares line needs at least two values.")
        slope, intercept = regression_line(predicted, reference)
        panel.scatter(reference, predicted, s=9, color=SeriesStyle(position).colour, alpha=0.35, linewidths=0)
        panel.plot(EF_RANGE, EF_RANGE, color=NEUTRAL_COLOUR, linestyle="--", linewidth=1.2, label="Identity")
        panel.plot(
            [reference.min(), reference.max()],
            slope * np.array([reference.min(), reference.max()]) + intercept,
            color="black",
            linewidth=2,
            label="Least-squares line",
        )
        line = f"slope {slope:.2f}, intercept {intercept:.1f}".replace("-", "\N{MINUS SIGN}")
        panel.set_title(f"{name}, n = {reference.size:,}\n{line}", loc="left", pad=16)
        panel.set_aspect("equal")
        shade_categories(panel)
        label_ef_axis(panel, "Reference ejection fraction (%)")
    # Predictions of other methods may lie beyond the range of an EF.
    everything = np.concatenate([EF_RANGE, *(np.asarray(values, dtype=np.float64) for values in predictions.values())])
    panels[0].set_ylim(everything.min(), everything.max())
    panels[0].set_ylabel("Predicted ejection fraction (%)")
    legend_below(figure, panels[0])
    return figure


@styled
def expert_mae_figure(
    predictions: Mapping[str, ArrayLike],
    references: ArrayLike,
    *,
    hatched: str | None = "oracle",
    subtitle: str | None = None,
) -> Figure:
    """Draw the mean absolute error of several predictors per heart-failure category (figure 3b of the paper).

    The predictor `hatched` is drawn hatched, since it uses the reference and is a bound, not a method. A category
    without samples has no bars.
    """
    _require(predictions, "expert_mae_figure needs the predictions of at least one predictor.")
    metrics = {name: ef_regression_metrics(values, references) for name, values in predictions.items()}
    figure = new_figure("Mean absolute error per heart-failure category", subtitle, width=8.5, height=4.4)
    panel = figure.subplots()
    bar_width = 0.84 / len(metrics)
    groups = np.arange(len(CATEGORY_TITLES))
    for position, (name, values) in enumerate(metrics.items()):
        errors = [values["mae" if category == "all" else f"mae_{category}"] for category in CATEGORY_TITLES]
        look = SeriesStyle(position)
        bars = panel.bar(
            groups + (position - (len(metrics) - 1) / 2) * bar_width,
            errors,
            width=0.92 * bar_width,
            color="white" if name == hatched else look.colour,
            edgecolor=NEUTRAL_COLOUR if name == hatched else "white",
            hatch="////" if name == hatched else look.hatch,
            label=name,
        )
        panel.bar_label(
            bars,
            labels=["" if np.isnan(error) else f"{error:.2f}" for error in errors],
            rotation=90 if len(metrics) > 3 else 0,
            padding=2,
            fontsize=8,
        )
    counts = next(iter(metrics.values()))
    panel.set_xticks(
        groups,
        [f"{title}\nn = {counts['n' if key == 'all' else f'n_{key}']:,}" for key, title in CATEGORY_TITLES.items()],
    )
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel("Mean absolute error (EF points)")
    panel.margins(y=0.14)
    legend_below(figure, panel)
    return figure


@styled
def bland_altman_figure(predictions: ArrayLike, references: ArrayLike, *, subtitle: str | None = None) -> Figure:
    """Draw the differences between predicted and reference EF against their mean (Bland and Altman 1986).

    Lines show the bias and the 95 % limits of agreement (bias ± 1.96 sd). Points are coloured by the category of the
    reference, which shows a bias that depends on the ejection fraction. At least two samples are needed.
    """
    predicted, reference = validate_predictions(predictions, references)
    limits = bland_altman_limits(predicted, reference)
    figure = new_figure("Agreement of predicted with reference ejection fraction", subtitle, width=7.5, height=4.6)
    panel = figure.subplots()
    masks = category_masks(reference)
    for category in HEART_FAILURE_CATEGORIES:
        mask = masks[category]
        panel.scatter(
            (predicted[mask] + reference[mask]) / 2,
            predicted[mask] - reference[mask],
            s=11,
            color=CATEGORY_COLOURS[category],
            alpha=0.55,
            linewidths=0,
            # Rare categories lie on top of frequent ones.
            zorder=2 - mask.mean(),
            label=f"{CATEGORY_TITLES[category]} (n = {mask.sum():,})",
        )
    for height, name, line_style in (
        (limits.upper, "+1.96 sd", "--"),
        (limits.bias, "Bias", "-"),
        (limits.lower, "-1.96 sd", "--"),
    ):
        panel.axhline(height, color="black", linestyle=line_style, linewidth=1.2)
        panel.annotate(
            f"{name}\n{height:+.2f}".replace("-", "\N{MINUS SIGN}"),
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=9,
        )
    panel.set_xlabel("Mean of predicted and reference ejection fraction (%)")
    panel.set_ylabel("Predicted minus reference (EF points)")
    legend_below(figure, panel)
    return figure


def save_figures(figures: Mapping[str, Figure], output_dir: str | Path, *, dpi: int = 150) -> list[Path]:
    """Save figures as PNG files; the same figures give the same bytes.

    Args:
        figures: File name without suffix to figure.
        output_dir: Directory to write to; it is created if needed.
        dpi: Resolution in pixels per inch.

    Returns:
        Paths of the written files, in the order given.
    """
    directory = Path(output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        path = directory / f"{name}.png"
        with matplotlib.rc_context({**STYLE, "savefig.bbox": None}):
            # The only metadata that matplotlib adds to a PNG by itself is its version.
            figure.savefig(path, dpi=dpi, format="png", metadata={"Software": None})
        paths.append(path)
    return paths


def _require(values: Sized, message: str) -> None:
    if len(values) == 0:
        raise ValueError(message)
