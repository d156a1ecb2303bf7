"""What a results folder shows for its finished cells: long tables, tests, tables of the paper, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..methods import get_method, list_methods
from .comparison_figures import save_comparison_figures
from .published import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from .record import read_record
from .results import FinishedCell, cost_table, long_table, read_finished_cells, seeds_of, write_csv
from .routing_cost import routing_cost
from .significance import significance_table
from .table_formats import save_tables
from .tables import measured_table, published_table
from .variants import REFERENCE_METHOD, SWEEPS, Variant


__all__ = ["build_report", "write_results"]


def write_results(results: Path) -> list[FinishedCell]:
    """Write results.csv (TEST), validation.csv (VAL) and cost.csv of the cells that are finished.

    Args:
        results: Results folder.

    Returns:
        The cells.
    """
    cells = read_finished_cells(results, list_methods())
    write_csv(results / "results.csv", long_table(cells))
    write_csv(results / "validation.csv", long_table(cells, "validation"))
    write_csv(results / "cost.csv", cost_table(cells))
    return cells


def build_report(
    results: Path, *, sweeps: Mapping[str, Sequence[Variant]] | None = None, published: bool = False
) -> list[Path]:
    """Write everything that follows from the finished cells of a results folder.

    Args:
        results: Results folder.
        sweeps: Variants of EchoMEN by the name of their sweep; each makes a table.
        published: Whether the numbers of the paper stand below the tables.

    Returns:
        Tables in Markdown, the paper's first; empty if no cell is finished.
    """
    record, cells = read_record(results), write_results(results)
    if not cells:
        return []
    samples = int(record["settings"]["bootstrap_samples"])
    table, validation = long_table(cells), long_table(cells, "validation")
    significance = significance_table(cells, num_resamples=samples)
    write_csv(results / "significance.csv", significance)
    is_tested = len(significance) > 0
    kind = "SYNTHETIC data" if record["data"]["synthetic"] else Path(record["data"]["data_dir"]).name
    about = (
        f"{kind}, TEST, {len(cells[0].predictions)} videos, protocol {record['settings']['protocol']}, "
        f"schedule {record['settings']['schedule']}"
    )
    titles = {cell.method: cell.title for cell in cells}
    rivals = [name for group in ("rival", "newer", "paper") for name in list_methods(group)]
    ablations = [*list_methods("ablation"), REFERENCE_METHOD]
    in_paper = {
        "table1": (1, "Errors in EF points", rivals, PUBLISHED_TABLE_1),
        "table2": (2, "Ablations of EchoMEN, errors in EF points", ablations, PUBLISHED_TABLE_2),
    }
    written = []
    for name, (number, what, methods, numbers) in in_paper.items():
        rows = {method: titles[method] for method in methods if method in titles}
        if not rows.keys() - ({REFERENCE_METHOD} if number == 2 else set()):
            continue
        notes = table_notes(results, record, [cell for cell in cells if cell.method in rows], is_tested)
        tables = [measured_table(table, rows, caption=f"{what}. {about}.", notes=notes, significance=significance)]
        if published:
            tables.append(published_table(numbers, number))
        written.append(save_tables(results / name, tables)[0])
    for name, variants in (sweeps or {}).items():
        rows = sweep_rows(variants, titles)
        if rows:
            notes = [
                "A value is chosen by its errors on VAL; those on TEST are for the record.",
                *table_notes(results, record, [cell for cell in cells if cell.method in rows], is_tested),
            ]
            caption = f"EchoMEN with other values of {SWEEPS[name].field}, errors in EF points. {about}."
            swept = measured_table(
                table, rows, caption=caption, notes=notes, significance=significance, validation=validation
            )
            written.append(save_tables(results / f"sweep_{name}", [swept])[0])
        if name == "top_k":
            write_csv(results / "sweep_top_k_cost.csv", routing_cost(record["settings"]["model_config"]))
    every = {name: row for variants in (sweeps or {}).values() for name, row in sweep_rows(variants, titles).items()}
    best = best_on_validation(validation, list(every))
    if best is not None and best != REFERENCE_METHOD:
        best_title = f"EchoMEN, {every[best]}"
        rows = {name: titles[name] for name in rivals if name in titles} | {best: best_title}
        tests = significance_table(cells, num_resamples=samples, reference=best)
        write_csv(results / "significance_sweep_best.csv", tests)
        shown = [cell for cell in cells if cell.method in rows]
        notes = [
            f"{best_title}: the least balanced MAE on VAL of {len(every)} settings of EchoMEN. Nothing was tried for "
            "the other methods, so that this row has an advantage; that of EchoMEN has none.",
            *table_notes(results, record, shown, len(tests) > 0, best_title, "significance_sweep_best.csv"),
        ]
        caption = f"Errors in EF points, with the setting of EchoMEN that is best on VAL. {about}."
        table_of_best = measured_table(
            table, rows, caption=caption, notes=notes, significance=tests, validation=validation
        )
        written.append(save_tables(results / "sweep_best", [table_of_best])[0])
    save_comparison_figures(cells, results / "figures", what={"": rivals, "_ablations": ablations}, about=about)
    return written


def sweep_rows(variants: Sequence[Variant], titles: Mapping[str, str]) -> dict[str, str]:
    """Name the rows of a sweep's table.

    Args:
        variants: Variants of the sweep.
        titles: Titles of finished methods.

    Returns:
        Titles by method, for those that are finished.
    """
    rows = {}
    for variant in variants:
        shown = f"{variant.value:g}" if isinstance(variant.value, float) else str(variant.value)
        own = f" ({titles[variant.name]})" if variant.name in list_methods() and variant.name in titles else ""
        if variant.name in titles:
            rows[variant.name] = f"{variant.changed_field} = {shown}{own}"
    return rows


def best_on_validation(validation: pd.DataFrame, names: Sequence[str]) -> str | None:
    """Choose the method with the least balanced MAE on VAL, averaged over seeds.

    Args:
        validation: Table of `long_table` on VAL.
        names: Methods to choose from; the first of equal ones is taken.

    Returns:
        Name of one of those that have as many seeds as any; `None` if there is none, or none has all categories.
    """
    chosen = validation[(validation["metric"] == "balanced_mae") & validation["method"].isin(names)]
    errors = chosen.dropna(subset="value").groupby("method", sort=False)["value"].agg(["count", "mean"])
    errors = errors[errors["count"] == errors["count"].max()].reindex([name for name in names if name in errors.index])
    return None if errors["mean"].dropna().empty else str(errors["mean"].idxmin())


def table_notes(
    results: Path,
    record: Mapping[str, Any],
    cells: Sequence[FinishedCell],
    is_tested: bool,
    reference: str = "EchoMEN",
    tests: str = "significance.csv",
) -> list[str]:
    """Say what a reader of a table has to know.

    Args:
        results: Results folder.
        record: Content of comparison.json.
        cells: Cells of the table.
        is_tested: Whether the table has p-values.
        reference: Title of the method that the others are compared with.
        tests: Name of the file with all tests.

    Returns:
        Sentences.
    """
    settings = record["settings"]
    notes = [
        f"Mean ± standard deviation over training seeds, where there are several ({seeds_of(cells)}). The best of "
        "every column is bold, the second underlined.",
    ]
    if is_tested:
        notes.append(
            f"p: paired bootstrap over the videos of TEST against {reference} ({settings['bootstrap_samples']} "
            "resamples, errors averaged over common seeds, two-sided, not corrected for the number of methods; all "
            f"tests with corrected values are in {tests})."
        )
    options = {cell.method: cell.document["cell_settings"]["options"] for cell in cells}
    given = {name: changed for name in options if (changed := changed_options(name, options[name]))}
    if given:
        notes.append(f"Options that differ from the methods' own: {json.dumps(given, sort_keys=True)}.")
    failed = sorted(
        f"{path.parent.parent.name} ({path.parent.name.replace('_', ' ')})"
        for path in results.glob("cells/*/seed_*/error.txt")
        if not (path.parent / "metrics.json").is_file()
    )
    if failed:
        notes.append(f"Cells that failed and are not in these tables: {', '.join(failed)}.")
    commits = sorted({str(cell.document["git_commit"]) for cell in cells})
    if len(commits) > 1:
        notes.append(f"Cells were computed at different commits: {', '.join(commits)}.")
    return notes


def changed_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Find the options of a cell that are not the method's own.

    Args:
        method: Name of the method.
        options: Its options.

    Returns:
        Options that differ.
    """
    own = json.loads(json.dumps(get_method(method).options, default=str)) if method in list_methods() else options
    return {name: value for name, value in options.items() if own.get(name) != value}
