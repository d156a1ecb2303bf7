"""Figures 1c, 3a and 3b of the paper for several methods, and the trade between strong and weak hearts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from ..evaluation.figures import draw_band_counts, expert_mae_figure, save_figures
from ..figure_style import (
    NEUTRAL_COLOUR,
    SERIES_COLOURS,
    SeriesStyle,
    label_ef_axis,
    legend_below,
    new_figure,
    shade_categories,
    styled,
)
from ..labels import EF_RANGE, category_masks
from ..metrics import ef_regression_metrics, error_by_band, oracle_predictions, regression_line
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from .results import FinishedCell, seeds_of
from .variants import REFERENCE_METHOD


__all__ = ["save_comparison_figures"]

Predictions = Mapping[str, Sequence[NDArray[np.float64]]]
"""EF in percent by title of the method, one array of shape (N,) per seed."""

PANELS_PER_ROW = 4
FAR_ABOVE = 5.0  # interquartile ranges above the third quartile of the methods' errors


@styled
def error_by_band_of_methods(
    predictions: Predictions,
    references: NDArray[np.float64],
    *,
    emphasised: str | None = None,
    band_width: float = 10.0,
    subtitle: str | None = None,
) -> Figure:
    """Mean squared error per band of reference EF, averaged over seeds, with the number of videos (figure 1c)."""
    figure = new_figure("Error along the range of ejection fractions", subtitle, width=9.0, height=6.4)
    errors_panel, counts_panel = figure.subplots(2, 1, sharex=True, height_ratios=(3.5, 1))
    looks = looks_of(list(predictions), emphasised)
    for title, by_seed in predictions.items():
        bands = [error_by_band(values, references, band_width=band_width, error="mse") for values in by_seed]
        look, is_main = looks[title], title == emphasised
        errors_panel.plot(
            (bands[0].lower + bands[0].upper) / 2,
            np.mean([band.errors for band in bands], axis=0),
            color=look.colour,
            linestyle=look.line,
            linewidth=3.0 if is_main else 1.3,
            marker=look.marker,
            markersize=7 if is_main else 4,
            zorder=3 if is_main else 2,
            label=title,
        )
    errors_panel.set_ylabel("Mean squared error\n(squared EF points)")
    # On a linear scale the large errors of the rarest bands would hide all others.
    errors_panel.set_yscale("log")
    errors_panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    errors_panel.yaxis.set_major_formatter("{x:g}")
    errors_panel.yaxis.set_minor_formatter(NullFormatter())
    shade_categories(errors_panel)
    draw_band_counts(counts_panel, bands[0], band_width)
    legend_below(figure, errors_panel)
    return figure


@styled
def scatter_of_methods(
    predictions: Predictions,
    references: NDArray[np.float64],
    *,
    emphasised: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Predicted against reference EF of the first seed, with the mean least-squares line (figure 3a)."""
    columns = min(PANELS_PER_ROW, len(predictions))
    rows = math.ceil(len(predictions) / columns)
    width, height = max(3.1 * columns, 5.0), 3.4 * rows + 1.0
    figure = new_figure("Predicted against reference ejection fraction", subtitle, width=width, height=height)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    for panel in panels[len(predictions) :]:
        panel.set_visible(False)
    span, looks = np.array([references.min(), references.max()]), looks_of(list(predictions), emphasised)
    for position, (panel, (title, by_seed)) in enumerate(zip(panels, predictions.items(), strict=False)):
        lines = [regression_line(values, references) for values in by_seed]
        slope, intercept = np.mean(lines, axis=0)
        panel.scatter(references, by_seed[0], s=6, color=looks[title].colour, alpha=0.35, linewidths=0)
        panel.plot(EF_RANGE, EF_RANGE, color=NEUTRAL_COLOUR, linestyle="--", linewidth=1.0, label="Identity")
        panel.plot(span, slope * span + intercept, color="black", linewidth=1.8, label="Least-squares line")
        line = f"slope {slope:.2f}, intercept {intercept:.1f}".replace("-", "\N{MINUS SIGN}")
        panel.set_title(f"{title}\n{line}", loc="left", fontsize=9)
        panel.set_aspect("equal")
        label_ef_axis(panel, "Reference EF (%)" if position >= len(predictions) - columns else "")
        panel.xaxis.set_tick_params(labelbottom=position >= len(predictions) - columns)
        panel.set_xticks(np.arange(EF_RANGE[0], EF_RANGE[1] + 1, 20))
    everything = np.concatenate([EF_RANGE, *(values for by_seed in predictions.values() for values in by_seed[:1])])
    panels[0].set_ylim(everything.min(), everything.max())
    for panel in panels[::columns]:
        panel.set_ylabel("Predicted EF (%)")
    legend_below(figure, panels[0])
    return figure


@styled
def mae_by_category_of_methods(
    predictions: Predictions,
    references: NDArray[np.float64],
    *,
    emphasised: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Mean absolute error per heart-failure category, mean and standard deviation over seeds (figure 3b)."""
    metrics = {title: [ef_regression_metrics(v, references) for v in seeds] for title, seeds in predictions.items()}
    figure = new_figure(
        "Mean absolute error per heart-failure category", subtitle, width=max(8.5, 0.95 * len(metrics)), height=4.8
    )
    panel = figure.subplots()
    bar_width = 0.86 / len(metrics)
    groups = np.arange(len(CATEGORY_TITLES))
    looks = looks_of(list(predictions), emphasised)
    keys = ["mae" if category == "all" else f"mae_{category}" for category in CATEGORY_TITLES]
    for position, (title, by_seed) in enumerate(metrics.items()):
        values = np.array([[metrics_of_seed[key] for key in keys] for metrics_of_seed in by_seed])  # (S, 4)
        means = values.mean(axis=0)
        whiskers = values.std(axis=0, ddof=1) if len(values) > 1 else None
        bars = panel.bar(
            groups + (position - (len(metrics) - 1) / 2) * bar_width,
            means,
            width=0.92 * bar_width,
            color=looks[title].colour,
            edgecolor="white",
            hatch=looks[title].hatch,
            yerr=whiskers,
            error_kw={"ecolor": NEUTRAL_COLOUR, "elinewidth": 1.0, "capsize": 1.5},
            label=title,
        )
        labels = ["" if np.isnan(error) else f"{error:.2f}" for error in means]
        panel.bar_label(bars, labels=labels, rotation=90 if len(metrics) > 3 else 0, padding=3, fontsize=7)
    counts = next(iter(metrics.values()))[0]
    panel.set_xticks(
        groups,
        [f"{title}\nn = {counts['n' if key == 'all' else f'n_{key}']:,}" for key, title in CATEGORY_TITLES.items()],
    )
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel("Mean absolute error (EF points)")
    panel.margins(x=0.01, y=0.16)
    legend_below(figure, panel)
    return figure


@styled
def trade_of_methods(
    predictions: Predictions,
    references: NDArray[np.float64],
    *,
    emphasised: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """MAE on HFrEF over that on HFpEF, with the standard deviations over seeds; better is down and left.

    Methods whose errors are far above the others', as after failed trainings, are written at the edge.
    """
    figure = new_figure("Errors on weak hearts against errors on strong ones", subtitle, width=8.5, height=6.8)
    panel = figure.subplots()
    looks = looks_of(list(predictions), emphasised)
    means, spreads = {}, {}
    for title, by_seed in predictions.items():
        metrics = [ef_regression_metrics(values, references) for values in by_seed]
        errors = np.array([[of_seed["mae_hfpef"], of_seed["mae_hfref"]] for of_seed in metrics])  # (S, 2)
        means[title] = errors.mean(axis=0)
        spreads[title] = errors.std(axis=0, ddof=1) if len(errors) > 1 else np.zeros(2)
    lower, upper = np.quantile(list(means.values()), [0.25, 0.75], axis=0)  # (2,) each
    shown = {title: mean for title, mean in means.items() if (mean <= upper + FAR_ABOVE * (upper - lower)).all()}
    for title, (x, y) in shown.items():
        (across, up), look = spreads[title], looks[title]
        panel.errorbar(x, y, xerr=across, yerr=up, color=look.colour, elinewidth=0.8)
        panel.plot(x, y, marker=look.marker, color=look.colour, markersize=9 if title == emphasised else 6)
    beyond = [
        f"{title} ({x:.2f} ± {spreads[title][0]:.2f}, {y:.2f} ± {spreads[title][1]:.2f})"
        for title, (x, y) in means.items()
        if title not in shown
    ]
    if beyond:
        note = f"Beyond the panel: {', '.join(beyond)}"
        panel.text(0.99, 0.98, note, transform=panel.transAxes, ha="right", va="top", fontsize=8, color=NEUTRAL_COLOUR)
    panel.grid(axis="x")
    panel.margins(0.08)
    panel.set_xlabel(f"MAE on {CATEGORY_TITLES['hfpef']} (EF points)")
    panel.set_ylabel(f"MAE on {CATEGORY_TITLES['hfref']} (EF points)")
    figure.draw_without_rendering()  # places the panel
    write_names(panel, shown, spreads, {title: look.colour for title, look in looks.items()})
    return figure


def write_names(
    panel: Axes,
    places: Mapping[str, NDArray[np.float64]],
    spreads: Mapping[str, NDArray[np.float64]],
    colours: Mapping[str, str],
) -> None:
    """Write the name of every point beside it, where it hides the least of points, error bars and other names."""
    pixels = {name: panel.transData.transform(place) for name, place in places.items()}
    taken = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in pixels.values()]
    bars = [
        Bbox(panel.transData.transform([places[name] - half, places[name] + half])).padded(1)
        for name in places
        for half in np.diag(spreads[name])
    ]
    for name, (x, y) in pixels.items():
        text = panel.annotate(
            name,
            tuple(places[name]),
            xytext=(0, 0),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=8,
            color=colours[name],
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": NEUTRAL_COLOUR, "shrinkA": 0, "shrinkB": 4},
        )
        extent = text.get_window_extent()
        width, height = extent.width, extent.height
        costs = {}
        for reach in (10, 20, 35, 55, 80):
            for angle in np.deg2rad(np.arange(0, 360, 30)):
                dx, dy = np.cos(angle) * (width / 2 + reach), np.sin(angle) * (height / 2 + reach)
                box = Bbox.from_bounds(x + dx - width / 2, y + dy - height / 2, width, height)
                is_inside = panel.bbox.containsx(box.x0) and panel.bbox.containsx(box.x1)
                hidden = 5 * box.count_overlaps(taken) + box.count_overlaps(bars)
                costs[dx, dy] = (hidden + reach / 100 + (0 if is_inside else 100), box)
        (dx, dy), (_, box) = min(costs.items(), key=lambda item: item[1][0])
        text.set_position((dx * 72 / panel.figure.dpi, dy * 72 / panel.figure.dpi))
        taken.append(box)


def looks_of(titles: Sequence[str], emphasised: str | None) -> dict[str, SeriesStyle]:
    """Style of every method. Only the emphasised one is black."""
    black = SERIES_COLOURS.index("#000000")
    own = (SeriesStyle(number) for number in count() if number % len(SERIES_COLOURS) != black)
    return {title: SeriesStyle(black) if title == emphasised else next(own) for title in titles}


def save_comparison_figures(
    cells: Sequence[FinishedCell], folder: Path, *, what: Mapping[str, Sequence[str]], about: str
) -> list[Path]:
    """Draw the figures of every set of methods, by the ending of its file names."""
    references = cells[0].predictions["EF"].to_numpy()
    main = next((cell.title for cell in cells if cell.method == REFERENCE_METHOD), None)
    figures: dict[str, Figure] = {}
    for ending, methods in what.items():
        predictions: dict[str, list[NDArray[np.float64]]] = {}
        for cell in cells:
            if cell.method in methods:
                predictions.setdefault(cell.title, []).append(cell.predictions["EF_pred"].to_numpy())
        if not predictions:
            continue
        seeds = seeds_of([cell for cell in cells if cell.method in methods])
        drawings = {
            "error_by_band": (error_by_band_of_methods, "mean"),
            "mae_by_category": (mae_by_category_of_methods, "mean and standard deviation"),
            "scatter": (scatter_of_methods, "points of the first, mean line"),
            "trade": (trade_of_methods, "mean and standard deviation"),
        }
        if np.ptp(references) == 0:
            drawings.pop("scatter")
        if not all(category_masks(references)[category].any() for category in ("hfref", "hfpef")):
            drawings.pop("trade")
        for name, (draw, shown) in drawings.items():
            figures[f"{name}{ending}"] = draw(
                predictions, references, emphasised=main, subtitle=f"{about}; {seeds}: {shown}"
            )
    own = next((cell for cell in cells if cell.method == REFERENCE_METHOD), None)
    if own is not None:
        experts = own.predictions.filter(regex=r"^EF_expert_\d+$")
        if experts.shape[1] > 1 and not experts.isna().to_numpy().any():
            values = experts.to_numpy()  # (N, M)
            parts = {f"expert {number}": column for number, column in enumerate(values.T)}
            parts |= {"mean of experts": values.mean(axis=1), own.title: own.predictions["EF_pred"].to_numpy()}
            parts["oracle"] = oracle_predictions(values, references)
            about_own = f"{about}; {own.title}, seed {own.seed}"
            figures["expert_mae"] = expert_mae_figure(parts, references, subtitle=about_own)
    return save_figures(figures, folder)
