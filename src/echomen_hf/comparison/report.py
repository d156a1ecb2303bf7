"""Report on the finished cells of a results folder: long tables, tests, the paper's tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..methods import MethodGroup, get_method, list_methods
from ..runs.files import write_csv
from .comparison_figures import save_comparison_figures
from .published import PUBLISHED_TABLE_1, PUBLISHED_TABLE_2
from .record import read_record
from .results import FinishedCell, cost_table, long_table, read_finished_cells, seeds_of, write_archive
from .routing_cost import routing_cost
from .significance import significance_table
from .tables import calibration_table, measured_table, published_table, save_tables
from .variants import REFERENCE_METHOD, SWEEPS, Variant


__all__ = ["build_report", "write_results"]


def write_results(results: Path) -> list[FinishedCell]:
    """Write results.csv (TEST), validation.csv (VAL) and cost.csv of the finished cells."""
    cells = read_finished_cells(results, list_methods())
    write_csv(results / "results.csv", long_table(cells))
    write_csv(results / "validation.csv", long_table(cells, "validation"))
    write_csv(results / "cost.csv", cost_table(cells))
    return cells


def build_report(
    results: Path, *, sweeps: Mapping[str, Sequence[Variant]] | None = None, published: bool = False
) -> list[Path]:
    """Write all tables and figures of the finished cells, and return the paths of the Markdown tables.

    The results may be folders of cells, or the two files of `write_archive` alone.
    """
    record, cells = read_record(results), write_results(results)
    if not cells:
        return []
    write_archive(results, cells)
    report = ComparisonReport(results, record, cells)
    write_csv(results / "significance.csv", report.significance)
    written = report.save_paper_tables(published)
    for name, variants in (sweeps or {}).items():
        written += report.save_sweep(name, variants)
    if sweeps:
        written += report.save_best_setting([variant for variants in sweeps.values() for variant in variants])
    save_comparison_figures(
        cells, results / "figures", what={"": rival_names(), "_ablations": ablation_names()}, about=report.about
    )
    return written


def rival_names() -> list[str]:
    """Names of the methods of table 1 in its order, EchoMEN last."""
    groups: tuple[MethodGroup, ...] = ("rival", "newer", "encoder", "paper")
    return [name for group in groups for name in list_methods(group)]


def ablation_names() -> list[str]:
    """Names of the methods of table 2 in its order, EchoMEN last."""
    return [*list_methods("ablation"), REFERENCE_METHOD]


@dataclass(frozen=True)
class ComparisonReport:
    """Tables of the finished cells of a results folder, of which there is at least one."""

    results: Path
    record: Mapping[str, Any]  # content of comparison.json
    cells: Sequence[FinishedCell]

    @cached_property
    def test(self) -> pd.DataFrame:
        """Table of `long_table` on TEST."""
        return long_table(self.cells)

    @cached_property
    def validation(self) -> pd.DataFrame:
        """Table of `long_table` on VAL."""
        return long_table(self.cells, "validation")

    @cached_property
    def significance(self) -> pd.DataFrame:
        """Tests of every method against EchoMEN."""
        return self.tests_against(REFERENCE_METHOD)

    @property
    def titles(self) -> dict[str, str]:
        """Titles of finished methods by name."""
        return {cell.method: cell.title for cell in self.cells}

    @property
    def about(self) -> str:
        """Data and protocol, for captions."""
        data, settings = self.record["data"], self.record["settings"]
        kind = "SYNTHETIC data" if data["synthetic"] else Path(data["data_dir"]).name
        return (
            f"{kind}, TEST, {len(self.cells[0].predictions)} videos, protocol {settings['protocol']}, "
            f"schedule {settings['schedule']}"
        )

    def tests_against(self, reference: str) -> pd.DataFrame:
        """Test every method against one of them."""
        samples = int(self.record["settings"]["bootstrap_samples"])
        return significance_table(self.cells, num_resamples=samples, reference=reference)

    def save_paper_tables(self, published: bool) -> list[Path]:
        """Write tables 1 and 2 of the paper, as far as their methods are finished."""
        in_paper = {
            "table1": (1, "Errors in EF points", rival_names(), PUBLISHED_TABLE_1),
            "table2": (2, "Ablations of EchoMEN, errors in EF points", ablation_names(), PUBLISHED_TABLE_2),
        }
        written = []
        for name, (number, what, methods, numbers) in in_paper.items():
            rows = {method: self.titles[method] for method in methods if method in self.titles}
            if not rows.keys() - ({REFERENCE_METHOD} if number == 2 else set()):
                continue
            tables = [
                measured_table(
                    self.test,
                    rows,
                    caption=f"{what}. {self.about}.",
                    notes=self.notes(rows, self.significance),
                    significance=self.significance,
                ),
                calibration_table(
                    self.test, rows, caption="Bias in EF points, and slope of predicted over reference EF."
                ),
            ]
            if published:
                tables.append(published_table(numbers, number))
            written.append(save_tables(self.results / name, tables))
        return written

    def save_sweep(self, name: str, variants: Sequence[Variant]) -> list[Path]:
        """Write the table of a sweep, as far as its variants are finished."""
        if name == "top_k":
            write_csv(self.results / "sweep_top_k_cost.csv", routing_cost(self.record["settings"]["model_config"]))
        rows = sweep_rows(variants, self.titles)
        if not rows:
            return []
        table = measured_table(
            self.test,
            rows,
            caption=f"EchoMEN with other values of {SWEEPS[name].field}, errors in EF points. {self.about}.",
            notes=[
                "A value is chosen by its errors on VAL; those on TEST are for the record.",
                *self.notes(rows, self.significance),
            ],
            significance=self.significance,
            validation=self.validation,
        )
        return [save_tables(self.results / f"sweep_{name}", [table])]

    def save_best_setting(self, variants: Sequence[Variant]) -> list[Path]:
        """Write table 1 with the setting of EchoMEN that is best on VAL, if it is another one."""
        settings = sweep_rows(variants, self.titles)
        best = best_on_validation(self.validation, list(settings))
        if best is None or best == REFERENCE_METHOD:
            return []
        title = f"EchoMEN, {settings[best]}"
        rows = {name: self.titles[name] for name in rival_names() if name in self.titles} | {best: title}
        tests, tests_file = self.tests_against(best), "significance_sweep_best.csv"
        write_csv(self.results / tests_file, tests)
        table = measured_table(
            self.test,
            rows,
            caption=f"Errors in EF points, with the setting of EchoMEN that is best on VAL. {self.about}.",
            notes=[
                f"{title}: the least balanced MAE on VAL of {len(settings)} settings of EchoMEN. Nothing was tried "
                "for the other methods, so that this row has an advantage; that of EchoMEN has none.",
                *self.notes(rows, tests, title, tests_file),
            ],
            significance=tests,
            validation=self.validation,
        )
        return [save_tables(self.results / "sweep_best", [table])]

    def notes(
        self,
        rows: Mapping[str, str],
        tests: pd.DataFrame,
        reference: str = "EchoMEN",
        tests_file: str = "significance.csv",
    ) -> list[str]:
        """Sentences below a table: seeds, tests, changed options, failed cells, commits."""
        cells = [cell for cell in self.cells if cell.method in rows]
        notes = [
            f"Mean ± standard deviation over training seeds, where there are several ({seeds_of(cells)}). The best of "
            "every column is bold, the second underlined.",
        ]
        if len(tests):
            notes.append(
                f"p: two-way test against {reference}, over the videos of TEST and the common seeds, in pairs; "
                "two-sided, not corrected for the number of methods. A dash stands where there is one common seed. "
                f"All tests, corrected values and p-values that know the videos only are in {tests_file}."
            )
        options = {cell.method: cell.document["cell_settings"]["options"] for cell in cells}
        given = {name: changed for name in options if (changed := changed_options(name, options[name]))}
        if given:
            notes.append(f"Options that differ from the methods' own: {json.dumps(given, sort_keys=True)}.")
        failed = sorted(
            f"{path.parent.parent.name} ({path.parent.name.replace('_', ' ')})"
            for path in self.results.glob("cells/*/seed_*/error.txt")
            if not (path.parent / "metrics.json").is_file()
        )
        if failed:
            notes.append(f"Cells that failed and are not in these tables: {', '.join(failed)}.")
        commits = sorted({str(cell.document["git_commit"]) for cell in cells})
        if len(commits) > 1:
            notes.append(f"Cells were computed at different commits: {', '.join(commits)}.")
        return notes


def sweep_rows(variants: Sequence[Variant], titles: Mapping[str, str]) -> dict[str, str]:
    """Titles of the rows of a sweep's table by method, for those that are finished."""
    rows = {}
    for variant in variants:
        shown = f"{variant.value:g}" if isinstance(variant.value, float) else str(variant.value)
        own = f" ({titles[variant.name]})" if variant.name in list_methods() and variant.name in titles else ""
        if variant.name in titles:
            rows[variant.name] = f"{variant.changed_field} = {shown}{own}"
    return rows


def best_on_validation(validation: pd.DataFrame, names: Sequence[str]) -> str | None:
    """Method with the least mean balanced MAE on VAL among those with the most seeds, `None` if there is none."""
    chosen = validation[(validation["metric"] == "balanced_mae") & validation["method"].isin(names)]
    errors = chosen.dropna(subset="value").groupby("method", sort=False)["value"].agg(["count", "mean"])
    errors = errors[errors["count"] == errors["count"].max()].reindex([name for name in names if name in errors.index])
    return None if errors["mean"].dropna().empty else str(errors["mean"].idxmin())


def changed_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a cell that differ from the method's defaults."""
    own = json.loads(json.dumps(get_method(method).options, default=str)) if method in list_methods() else options
    return {name: value for name, value in options.items() if own.get(name) != value}
