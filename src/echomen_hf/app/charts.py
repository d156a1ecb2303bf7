"""Charts of a reading as SVG in the colours of the page, light or dark."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from ..figure_style import (
    CATEGORY_COLOURS,
    NEUTRAL_COLOUR,
    SERIES_COLOURS,
    STYLE,
    label_ef_axis,
    mark_category_boundaries,
    shade_categories,
)
from ..labels import CATEGORY_TITLES, EF_RANGE, HEART_FAILURE_CATEGORIES
from ..outline import VideoOutline
from .reader import Reading


__all__ = ["VOLUME_PANEL", "draw_experts", "draw_gauge", "draw_volume_curve", "draw_windows"]

# Colours that no drawing uses, each to be replaced by the page's own colour.
_INK, _MUTED, _GRID = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {
    _INK: "var(--body-text-color)",
    _MUTED: "var(--body-text-color-subdued)",
    _GRID: "var(--border-color-primary)",
    NEUTRAL_COLOUR: "var(--body-text-color-subdued)",
}
_STYLE = STYLE | {
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "svg.fonttype": "none",
    "svg.hashsalt": "echomen",
}
_SERIES = SERIES_COLOURS[0]
_WIDTH = 3.9  # inches: the drawings keep a size at which their text can be read on a phone
VOLUME_PANEL = (0.19, 0.79)
"""Left end and width of the panel of volumes, as shares of the drawing: the page moves a line along it."""

# The style of matplotlib is global, and several visitors are served at a time.
_drawing = threading.Lock()


def draw_gauge(reading: Reading) -> str:
    """Ejection fraction on a dial with the heart-failure categories."""

    def draw(figure: Figure) -> None:
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set(xlim=(-1.3, 1.3), ylim=(-0.14, 1.22), aspect="equal")
        panel.axis("off")
        for category, (low, high) in HEART_FAILURE_CATEGORIES.items():
            own = category == reading.category
            panel.add_patch(
                Wedge(
                    (0, 0),
                    1.0,
                    _angle(high) + 0.6,
                    _angle(low) - 0.6,
                    width=0.2,
                    color=CATEGORY_COLOURS[category],
                    alpha=1.0 if own else 0.35,
                    linewidth=0,
                )
            )
            _write(panel, 0.64, (low + high) / 2, CATEGORY_TITLES[category], 8.5, bold=own)
        for boundary in sorted({edge for edges in HEART_FAILURE_CATEGORIES.values() for edge in edges}):
            _write(panel, 1.15, boundary, f"{boundary:.0f}", 9, colour=_MUTED)
        estimate, spread = reading.ejection_fraction, reading.standard_deviation
        low, high = np.clip(reading.interval or [estimate - spread, estimate + spread], *EF_RANGE)
        panel.add_patch(Wedge((0, 0), 1.075, _angle(high), _angle(low), width=0.03, color=_INK, linewidth=0))
        angle = math.radians(_angle(float(np.clip(estimate, *EF_RANGE))))
        ring = np.array([0.77, 1.03])
        panel.plot(ring * math.cos(angle), ring * math.sin(angle), color=_INK, linewidth=4, zorder=5)

    return _svg(draw, 2.05, f"Dial: ejection fraction {reading.ejection_fraction:.1f} percent")


def draw_experts(reading: Reading) -> str:
    """Estimate and weight of every expert."""
    count = len(reading.experts)

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("constrained")
        estimates, bars = figure.subplots(1, 2, width_ratios=(2.6, 1), sharey=True)
        rows = np.arange(count)
        shade_categories(estimates)
        mark_category_boundaries(estimates)
        estimates.axvline(reading.ejection_fraction, color=_INK, linewidth=1.2)
        labels = []
        for row, (estimate, weight) in enumerate(zip(reading.experts, reading.weights)):
            used = not math.isnan(estimate)
            labels.append(f"expert {row}: {estimate:.1f} %" if used else f"expert {row}: not used")
            if used:
                estimates.plot([estimate], [row], "o", color=_INK, markersize=4 + 7 * weight, zorder=4)
        label_ef_axis(estimates, "EF (%)")
        estimates.set(xticks=range(0, 101, 20), ylim=(count - 0.5, -0.5), yticks=rows)
        estimates.set_yticklabels(labels)
        bars.barh(rows, np.array(reading.weights) * 100, height=0.45, color=_SERIES)
        for row, weight in enumerate(reading.weights):
            bars.text(100 * weight + 4, row, f"{weight:.0%}", va="center", fontsize=9)
        bars.set(xlim=(0, 160), xticks=[])
        bars.set_title("weight", fontsize=8, color=_MUTED, loc="left", pad=3)
        for panel in (estimates, bars):
            panel.tick_params(left=False)
            panel.spines["left"].set_visible(False)
            panel.grid(False)
        bars.spines["bottom"].set_visible(False)

    return _svg(draw, 0.95 + 0.36 * count, "Estimate and weight of every expert")


def draw_windows(reading: Reading) -> str:
    """Ejection fraction of every window over time."""
    starts, values = reading.window_starts, reading.window_ejection_fractions

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("constrained")
        panel = figure.subplots()
        end = max(starts) + reading.window_seconds
        low = max(EF_RANGE[0], min(values) - 12)
        high = min(EF_RANGE[1], max(values) + 12)
        for category, (bottom, top) in HEART_FAILURE_CATEGORIES.items():
            panel.axhspan(bottom, top, color=CATEGORY_COLOURS[category], alpha=0.12, linewidth=0, zorder=0)
            visible = (max(bottom, low), min(top, high))
            if visible[1] - visible[0] > 0.12 * (high - low):
                panel.text(
                    end, sum(visible) / 2, f" {CATEGORY_TITLES[category]}", color=_MUTED, fontsize=9, va="center"
                )
            if low < bottom < high:
                panel.axhline(bottom, color=_MUTED, linewidth=0.8, linestyle=":")
        panel.axhline(reading.ejection_fraction, color=_MUTED, linewidth=1.2, linestyle="--")
        for start, value in zip(starts, values):
            panel.plot([start, start + reading.window_seconds], [value, value], color=_SERIES, linewidth=4)
            panel.plot([start + reading.window_seconds / 2], [value], "o", color=_INK, markersize=4)
        panel.set(xlim=(0, end), ylim=(low, high), xlabel="time (s)", ylabel="EF (%)")
        panel.tick_params(axis="y", labelcolor=_MUTED)
        panel.spines["left"].set_visible(False)

    return _svg(draw, 2.2, "Ejection fraction of every window over time")


def draw_volume_curve(outline: VideoOutline) -> str:
    """Volume of the left ventricle over time, with end diastole and end systole of every beat, and beats as ticks."""

    def draw(figure: Figure) -> None:
        left, width = VOLUME_PANEL
        panel = figure.add_axes((left, 0.27, width, 0.66))
        seconds = np.arange(len(outline.volumes)) / outline.video.fps
        panel.plot(seconds, outline.volumes, color=_SERIES, linewidth=1.8, gid="curve")
        for ends, fill in (("ed_frame", _SERIES), ("es_frame", "none")):
            frames = [getattr(beat, ends) for beat in outline.beats]
            panel.plot(seconds[frames], outline.volumes[frames], "o", color=_INK, markerfacecolor=fill, markersize=5)
        top = np.nanmax(outline.volumes, initial=0)
        for beat in outline.beats:
            middle = seconds[[beat.ed_frame, beat.es_frame]].mean()
            panel.text(middle, 0.02 * top, f"{beat.ejection_fraction:.0f} %", fontsize=8.5, color=_MUTED, ha="center")
        # Ticks at the end diastoles; the end of the clip closes the axis.
        starts = [float(seconds[beat.ed_frame]) for beat in outline.beats]
        unit = "mL" if outline.unit == "mL" else "1000 pixels³"
        panel.set(xlim=(0, len(seconds) / outline.video.fps), ylim=(0, 1.1 * top or 1), ylabel=unit)
        panel.set_xticks(starts, [f"{start:.1f}" for start in starts])
        panel.set_xlabel("beats, from end diastole (s)")
        panel.tick_params(axis="x", length=5, color=_MUTED)
        panel.tick_params(axis="y", labelcolor=_MUTED)

    return _svg(draw, 2.2, "Volume of the left ventricle over time")


def _angle(ejection_fraction: float) -> float:
    """Degrees on the dial, from 180 on the left to 0 on the right."""
    low, high = EF_RANGE
    return 180 * (1 - (ejection_fraction - low) / (high - low))


def _write(
    panel: Axes,
    radius: float,
    ejection_fraction: float,
    text: str,
    size: float,
    *,
    colour: str = _INK,
    bold: bool = False,
) -> None:
    angle = math.radians(_angle(ejection_fraction))
    weight = "bold" if bold else "normal"
    x, y = radius * math.cos(angle), radius * math.sin(angle)
    panel.text(x, y, text, fontsize=size, color=colour, ha="center", va="center", fontweight=weight)


def _svg(draw: Callable[[Figure], None], height: float, title: str) -> str:
    with _drawing, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" class="chart" ', 1)
    for colour, page_colour in _PAGE_COLOURS.items():
        svg = svg.replace(colour.lower(), page_colour)
    return svg
