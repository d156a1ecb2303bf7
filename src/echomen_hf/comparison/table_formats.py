"""Tables as Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..evaluation.report import markdown_table
from ..runs.files import write_text
from .tables import Table, TableCell


__all__ = ["save_tables", "to_html", "to_latex", "to_markdown"]

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; border: solid; border-width: 2px 0; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; margin-bottom: 0.5rem; }}
th, td {{ padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }}
thead th.col_heading.level0 {{ text-align: center; }}
thead tr:last-child th {{ border-bottom: 1px solid; }}
tbody th {{ text-align: left; font-weight: normal; }}
p {{ max-width: 60rem; font-size: 0.9rem; color: #555; }}
section {{ margin-bottom: 2.5rem; }}
</style>
</head>
<body>
{sections}
</body>
</html>
"""
HTML_STYLES = {1: "font-weight: bold", 2: "text-decoration: underline"}
LATEX_STYLES = {1: "textbf: --rwrap", 2: "underline: --rwrap"}
LATEX_CHARACTERS = {"±": r"$\pm$", "–": "--", "<": "$<$", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#"}


def save_tables(path: str | Path, tables: Sequence[Table]) -> list[Path]:
    """Write tables to files of three formats.

    Args:
        path: Path without suffix.
        tables: Tables that follow each other in every file.

    Returns:
        Paths of the Markdown, LaTeX and HTML file.
    """
    texts = {
        ".md": "\n\n".join(to_markdown(table) for table in tables) + "\n",
        ".tex": "\n\n".join(to_latex(table) for table in tables) + "\n",
        ".html": to_html(tables),
    }
    written = []
    for suffix, text in texts.items():
        target = Path(path).with_suffix(suffix)
        written.append(write_text(target, text))
    return written


def to_markdown(table: Table) -> str:
    """Write a table as Markdown, whose columns also line up as plain text.

    Args:
        table: Table.

    Returns:
        Caption, table and notes.
    """
    header = ["Method", *(" ".join(filter(None, column)) for column in table.columns)]
    rows = [[title, *(markdown_cell(cell) for cell in cells)] for title, cells in table.rows]
    notes = "".join(f"\n\n{note}" for note in table.notes)
    return f"**{table.caption}**\n\n{markdown_table(header, rows)}{notes}"


def to_latex(table: Table) -> str:
    """Write a table as LaTeX for the package booktabs.

    Args:
        table: Table.

    Returns:
        A `table` environment, with the notes as comments before it.
    """
    frame = to_frame(table)
    styler = frame.style.format(latex_text).format_index(latex_text, axis=0).format_index(latex_text, axis=1)
    body = styler.apply(lambda _: styles(table, LATEX_STYLES), axis=None).to_latex(
        caption=latex_text(table.caption),
        column_format="l" + "r" * len(table.columns),
        hrules=True,
        multicol_align="c",
        position_float="centering",
    )
    notes = "".join(f"% {note}\n" for note in table.notes)
    return notes + body.rstrip("\n")


def to_html(tables: Sequence[Table]) -> str:
    """Write tables as one page that needs nothing from elsewhere.

    Args:
        tables: Tables.

    Returns:
        The page.
    """
    sections = []
    for number, table in enumerate(tables):
        styler = to_frame(table).style.format(escape="html").format_index(escape="html", axis=0)
        body = (
            styler.format_index(escape="html", axis=1)
            .apply(lambda _, table=table: styles(table, HTML_STYLES), axis=None)
            .set_caption(html.escape(table.caption))
            # By default pandas draws this identifier at random.
            .to_html(table_uuid=f"table_{number}", cell_ids=False)
        )
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in table.notes)
        sections.append(f"<section>\n{body}{notes}</section>")
    return PAGE.format(title=html.escape(tables[0].caption), sections="\n".join(sections))


def markdown_cell(cell: TableCell) -> str:
    """Mark the best and the second.

    Args:
        cell: Cell.

    Returns:
        Its text.
    """
    return {1: f"**{cell.text}**", 2: f"<u>{cell.text}</u>"}.get(cell.rank or 0, cell.text)


def latex_text(text: str) -> str:
    """Write text with LaTeX's commands for what is not plain.

    Args:
        text: Text.

    Returns:
        LaTeX.
    """
    return "".join(LATEX_CHARACTERS.get(character, character) for character in text)


def to_frame(table: Table) -> pd.DataFrame:
    """Lay a table out for pandas.

    Args:
        table: Table.

    Returns:
        Texts under a header of two lines.
    """
    return pd.DataFrame(
        [[cell.text for cell in cells] for _, cells in table.rows],
        index=[title for title, _ in table.rows],
        columns=pd.MultiIndex.from_tuples(list(table.columns)),
    )


def styles(table: Table, by_rank: dict[int, str]) -> pd.DataFrame:
    """Choose the style of every cell.

    Args:
        table: Table.
        by_rank: Style of the best and of the second.

    Returns:
        Styles in the shape of `to_frame`.
    """
    frame = to_frame(table)
    texts = [[by_rank.get(cell.rank or 0, "") for cell in cells] for _, cells in table.rows]
    return pd.DataFrame(texts, index=frame.index, columns=frame.columns)
