"""Style of the figures: palette, fonts, heading, and marks of the heart-failure categories."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .labels import CATEGORY_TITLES, EF_RANGE, HEART_FAILURE_CATEGORIES


__all__ = [
    "CATEGORY_COLOURS",
    "COUNT_COLOUR",
    "NEUTRAL_COLOUR",
    "STYLE",
    "SeriesStyle",
    "label_ef_axis",
    "legend_below",
    "mark_category_boundaries",
    "new_figure",
    "shade_categories",
    "styled",
]

# The palette of Okabe and Ito, which stays apart under the common colour-vision deficiencies.
CATEGORY_COLOURS = {"hfref": "#D55E00", "hfmref": "#E69F00", "hfpef": "#009E73"}
SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SERIES_LINES = ("-", "--", ":", "-.")
SERIES_HATCHES = (None, "....", "xxxx", "++++")
NEUTRAL_COLOUR = "#555555"
COUNT_COLOUR = "#BBBBBB"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
}
HEADING_LINE_INCHES = 0.21
SUBTITLE_CHARACTERS_PER_INCH = 14
LEGEND_ENTRY_INCHES = 0.55
LEGEND_CHARACTER_INCHES = 0.078

Parameters = ParamSpec("Parameters")


class SeriesStyle:
    """Look of one of several series; it stays distinct beyond the number of colours."""

    def __init__(self, position: int) -> None:
        lap, place = divmod(position, len(SERIES_COLOURS))
        self.colour = SERIES_COLOURS[place]
        self.marker = SERIES_MARKERS[place]
        self.line = SERIES_LINES[lap % len(SERIES_LINES)]
        self.hatch = SERIES_HATCHES[lap % len(SERIES_HATCHES)]


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Draw with the style of this module, whatever the global settings of matplotlib are, and leave those alone."""

    @functools.wraps(draw)
    def draw_styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(title: str, subtitle: str | None, *, width: float, height: float) -> Figure:
    """Create a figure with a title and a wrapped subtitle above the area of the panels."""
    lines = textwrap.wrap(subtitle or "", int(SUBTITLE_CHARACTERS_PER_INCH * width))
    heading = HEADING_LINE_INCHES * (1 + len(lines)) + 0.16
    height += HEADING_LINE_INCHES * len(lines)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - heading / height)))
    FigureCanvasAgg(figure)
    figure.text(0.12 / width, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", va="top")
    if lines:
        top = 1 - (0.12 + HEADING_LINE_INCHES) / height
        figure.text(0.12 / width, top, "\n".join(lines), fontsize=9, color=NEUTRAL_COLOUR, va="top")
    return figure


def shade_categories(panel: Axes) -> None:
    """Shade the EF range of each heart-failure category and write its name above the panel."""
    for category, (low, high) in HEART_FAILURE_CATEGORIES.items():
        panel.axvspan(low, high, color=CATEGORY_COLOURS[category], alpha=0.08, linewidth=0, zorder=0)
        panel.annotate(
            CATEGORY_TITLES[category],
            ((low + high) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="bottom",
            fontsize=8,
            color=NEUTRAL_COLOUR,
        )


def mark_category_boundaries(panel: Axes) -> None:
    """Draw a dotted line where one heart-failure category ends and the next begins."""
    for low, _ in HEART_FAILURE_CATEGORIES.values():
        if low > EF_RANGE[0]:
            panel.axvline(low, color=NEUTRAL_COLOUR, linewidth=0.8, linestyle=":")


def label_ef_axis(panel: Axes, label: str) -> None:
    """Let the x axis span all ejection fractions, with a tick every 10 points."""
    panel.set_xlim(*EF_RANGE)
    panel.set_xticks(np.arange(EF_RANGE[0], EF_RANGE[1] + 1, 10))
    panel.set_xlabel(label)


def legend_below(figure: Figure, panel: Axes) -> None:
    """Write the legend of a panel below all panels, where it hides no data, in as few rows as the width allows."""
    handles, labels = panel.get_legend_handles_labels()
    width = figure.get_figwidth()
    fitting = (columns for columns in range(len(labels), 1, -1) if _legend_width(labels, columns) < width)
    figure.legend(handles, labels, loc="outside lower center", ncols=next(fitting, 1))


def _legend_width(labels: list[str], columns: int) -> float:
    """Estimate the width in inches; matplotlib fills a legend column by column, each as wide as its longest label."""
    longest = [max(map(len, column)) for column in np.array_split(np.array(labels, dtype=object), columns)]
    return sum(LEGEND_ENTRY_INCHES + LEGEND_CHARACTER_INCHES * length for length in longest)
