"""Tables in the form of the paper: mean ± standard deviation over seeds, the best in bold, the second underlined."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..evaluation.report import METRIC_TITLES, MISSING_VALUE, markdown_table
from ..methods import get_method
from ..model.heart_failure_category_echomen import CATEGORY_TITLES
from ..runs.files import write_text
from .published import PUBLISHED_CAPTION


__all__ = ["calibration_table", "measured_table", "published_table", "save_tables"]

ERROR_COLUMNS: tuple[tuple[str, str], ...] = tuple(
    (metric, category) for metric in ("mae", "gm") for category in CATEGORY_TITLES
)
"""Columns of the paper's tables: metric and category."""

BALANCED_COLUMN = ("balanced_mae", "all")

MARKDOWN = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
LATEX = {0: "", 1: "textbf: --rwrap", 2: "underline: --rwrap"}
LATEX_CHARACTERS = str.maketrans(
    {"±": r"$\pm$", "–": "--", "<": "$<$", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#"}
)
CSS = {0: "", 1: "font-weight: bold", 2: "text-decoration: underline"}
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; }}
th, td {{ padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""

RankedText = tuple[str, int]
"""Text of a cell, and its place in its column: 1, 2, or 0 for any other and where there is no order."""


@dataclass(frozen=True)
class Table:
    """A table before it has a format."""

    caption: str
    texts: pd.DataFrame  # a row per method; the header has two lines
    ranks: pd.DataFrame  # see `RankedText`
    notes: Sequence[str] = ()


def measured_table(
    results: pd.DataFrame,
    rows: Mapping[str, str],
    *,
    caption: str,
    notes: Sequence[str] = (),
    significance: pd.DataFrame | None = None,
    validation: pd.DataFrame | None = None,
) -> Table:
    """Lay out measured errors, one row per method with results.

    `rows` has the titles by method. `significance` adds the p-values for the MAE of all videos and for the balanced
    MAE as the last columns, `validation` the two errors on VAL as the first columns.
    """
    names = [name for name in rows if (results["method"] == name).any()]
    columns: dict[tuple[str, str], list[RankedText]] = {}
    if validation is not None:
        for metric, category in (("mae", "all"), BALANCED_COLUMN):
            columns["VAL", METRIC_TITLES[metric]] = ranked(summaries(validation, names, metric, category))
    for metric, category in ERROR_COLUMNS:
        n = int(results.loc[results["category"] == category, "n"].iloc[0])
        header = METRIC_TITLES[metric], f"{CATEGORY_TITLES[category]} (n={n})"
        columns[header] = ranked(summaries(results, names, metric, category))
    metric, category = BALANCED_COLUMN
    columns[METRIC_TITLES[metric], CATEGORY_TITLES[category]] = ranked(summaries(results, names, metric, category))
    if significance is not None and len(significance):
        for title, metric in (("MAE, All", "mae"), ("Balanced MAE", "balanced_mae")):
            tests = significance[(significance["metric"] == metric) & (significance["category"] == "all")]
            p_values = dict(zip(tests["method"], tests["p_value"], strict=True))
            columns["p", title] = [(format_p_value(p_values.get(name, np.nan)), 0) for name in names]
    return _table(caption, [rows[name] for name in names], columns, notes)


def calibration_table(results: pd.DataFrame, rows: Mapping[str, str], *, caption: str) -> Table:
    """Lay out bias by category and slope of the same methods."""
    names = [name for name in rows if (results["method"] == name).any()]
    columns = {
        (METRIC_TITLES["bias"], title): ranked(summaries(results, names, "bias", category))
        for category, title in CATEGORY_TITLES.items()
    }
    columns[METRIC_TITLES["slope"], CATEGORY_TITLES["all"]] = ranked(
        summaries(results, names, "slope", "all"), target=1.0
    )
    return _table(caption, [rows[name] for name in names], columns)


def published_table(numbers: Mapping[str, Mapping[tuple[str, str], float]], number: int) -> Table:
    """Lay out the published errors of a table of the paper, marked as published."""
    columns = {
        (METRIC_TITLES[metric], CATEGORY_TITLES[category]): ranked(
            [(values[metric, category], np.nan) for values in numbers.values()]
        )
        for metric, category in ERROR_COLUMNS
    }
    caption = f"{PUBLISHED_CAPTION} (Table {number} of the EchoMEN paper, MICCAI 2024); not measured here."
    return _table(caption, [get_method(name).title for name in numbers], columns)


def _table(
    caption: str,
    titles: Sequence[str],
    columns: Mapping[tuple[str, str], Sequence[RankedText]],
    notes: Sequence[str] = (),
) -> Table:
    texts, ranks = (
        pd.DataFrame({header: [cell[part] for cell in cells] for header, cells in columns.items()}, index=titles)
        for part in (0, 1)
    )
    return Table(caption, texts, ranks, notes)


def summaries(table: pd.DataFrame, names: Sequence[str], metric: str, category: str) -> list[tuple[float, float]]:
    """Mean and sample standard deviation over seeds by method. The latter is NaN for a single seed."""
    chosen = table[(table["metric"] == metric) & (table["category"] == category)]
    values = {name: group["value"].to_numpy(np.float64) for name, group in chosen.groupby("method")}
    empty = np.array([np.nan])
    return [
        (float(v.mean()), float(v.std(ddof=1)) if v.size > 1 else np.nan)
        for v in (values.get(name, empty) for name in names)
    ]


def ranked(values: Sequence[tuple[float, float]], target: float = 0.0) -> list[RankedText]:
    """Format a column of means and standard deviations, and rank it as printed: equal distances share a place."""
    means = np.array([float(f"{mean:.2f}") for mean, _ in values])
    ranks = rankdata(np.round(np.abs(means - target), 2), method="min", nan_policy="omit")
    cells = []
    for (mean, sd), rank in zip(values, ranks, strict=True):
        if np.isnan(mean):
            cells.append((MISSING_VALUE, 0))
            continue
        text = f"{mean:.2f}" if np.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"
        has_order = np.isfinite(means).sum() > 1 and rank in (1, 2)
        cells.append((text, int(rank) if has_order else 0))
    return cells


def format_p_value(p_value: float) -> str:
    """Three digits, `<0.001`, or a dash for NaN."""
    if np.isnan(p_value):
        return MISSING_VALUE
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def save_tables(path: Path, tables: Sequence[Table]) -> Path:
    """Write tables below each other as Markdown, LaTeX and HTML, and return the path of the Markdown file."""
    write_text(path.with_suffix(".tex"), "\n\n".join(map(to_latex, tables)) + "\n")
    write_text(path.with_suffix(".html"), to_html(tables))
    return write_text(path.with_suffix(".md"), "\n\n".join(map(to_markdown, tables)) + "\n")


def to_markdown(table: Table) -> str:
    """Markdown whose columns also line up as plain text."""
    header = ["Method", *(" ".join(filter(None, column)) for column in table.texts.columns)]
    rows = [
        [title, *(MARKDOWN[rank].format(text) for text, rank in zip(texts, ranks, strict=True))]
        for title, texts, ranks in zip(table.texts.index, table.texts.to_numpy(), table.ranks.to_numpy(), strict=True)
    ]
    notes = "".join(f"\n\n{note}" for note in table.notes)
    return f"**{table.caption}**\n\n{markdown_table(header, rows)}{notes}"


def to_latex(table: Table) -> str:
    """`table` environment for the package booktabs, with the notes as comments before it."""
    styler = table.texts.style.format(_latex).format_index(_latex, axis=0).format_index(_latex, axis=1)
    body = styler.apply(lambda _: table.ranks.map(LATEX.get), axis=None).to_latex(
        caption=_latex(table.caption),
        column_format="l" + "r" * table.texts.shape[1],
        hrules=True,
        multicol_align="c",
        position_float="centering",
    )
    notes = "".join(f"% {note}\n" for note in table.notes)
    return notes + body.rstrip("\n")


def _latex(text: str) -> str:
    return text.translate(LATEX_CHARACTERS)


def to_html(tables: Sequence[Table]) -> str:
    """One page that loads nothing from elsewhere."""
    body = []
    for number, table in enumerate(tables):
        styler = table.texts.style.format(escape="html").set_caption(html.escape(table.caption))
        styler = styler.format_index(escape="html", axis=0).format_index(escape="html", axis=1)
        styler = styler.apply(lambda _, table=table: table.ranks.map(CSS.get), axis=None)
        # By default pandas draws the identifier at random.
        body.append(styler.to_html(table_uuid=f"table_{number}", cell_ids=False))
        body += [f"<p>{html.escape(note)}</p>" for note in table.notes]
    return PAGE.format(title=html.escape(tables[0].caption), body="\n".join(body))
