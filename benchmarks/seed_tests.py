"""Tests of a method against EchoMEN, and the check that these tests do not find what is not there.

    python -m benchmarks.seed_tests docs/results/more_videos --method echonet
    python -m benchmarks.seed_tests docs/results/more_videos --placebo

"p" is from the two-way test of a comparison, over videos and seeds in pairs, and "p unpaired" from the same test
without the pairs: if it is larger, the same seed makes both methods better or worse. "p over seeds" is from a paired
t-test, and "p over videos" from a paired bootstrap. "Detectable" is the difference that the two-way test would find
with a power of 80 %.

The placebo divides the seeds of one method in two groups, and tests them against each other as if they were two
methods. No more than 5 % of the divisions may differ significantly.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, ttest_rel

from echomen_hf.cli.command_line import run_script
from echomen_hf.comparison import paired_bootstrap, two_way_test
from echomen_hf.comparison.results import FinishedCell, absolute_errors, read_finished_cells
from echomen_hf.evaluation.report import METRIC_TITLES, markdown_table
from echomen_hf.labels import HEART_FAILURE_CATEGORIES, category_masks
from echomen_hf.model.heart_failure_category_echomen import CATEGORY_TITLES


HEADER = ("Error", "Mean", "EchoMEN", "Difference", "p", "p unpaired", "p over seeds", "p over videos")
LEVEL = 0.05


def groups_by_error(references: NDArray[np.float64]) -> dict[str, list[NDArray[np.bool_]]]:
    """Groups of videos whose mean errors have equal weight, by title of the error."""
    masks = category_masks(references)
    groups = {f"{METRIC_TITLES['mae']} {title}": [masks[category]] for category, title in CATEGORY_TITLES.items()}
    groups[METRIC_TITLES["balanced_mae"]] = [masks[category] for category in HEART_FAILURE_CATEGORIES]
    return groups


def seed_test_table(cells: Sequence[FinishedCell], method: str, seeds: Sequence[int] | None = None) -> str:
    """Markdown table of the tests of a method against EchoMEN, over all common seeds or some of them."""
    errors = absolute_errors(cells)
    common = errors.get(method, {}).keys() & errors.get("echomen", {}).keys()
    chosen = sorted(common & set(seeds) if seeds else common)
    if len(chosen) < 2:
        raise ValueError(f"{method} and echomen have seeds {sorted(common)} in common; at least two are needed.")
    own, reference = (np.stack([errors[name][seed] for seed in chosen]) for name in (method, "echomen"))  # (S, N)
    rows = []
    for title, masks in groups_by_error(cells[0].predictions["EF"].to_numpy()).items():
        parts, reference_parts = ([values[:, mask] for mask in masks] for values in (own, reference))
        differences = [mine - theirs for mine, theirs in zip(parts, reference_parts, strict=True)]
        by_seed, reference_by_seed = (
            np.mean([part.mean(axis=1) for part in side], axis=0) for side in (parts, reference_parts)
        )
        test = two_way_test(differences)
        half_width = (test.high - test.low) / 2
        p_values = (
            test.p_value,
            two_way_test(parts, reference_parts).p_value,
            ttest_rel(by_seed, reference_by_seed).pvalue,
            paired_bootstrap([part.mean(axis=0) for part in differences]).p_value,
        )
        rows.append(
            [
                title,
                *(f"{value:.2f}" for value in (by_seed.mean(), reference_by_seed.mean(), test.mean)),
                *(f"{p:.3f}" for p in p_values),
                f"{half_width:.2f}",
                f"{half_width * (1 + norm.ppf(0.8) / norm.ppf(1 - LEVEL / 2)):.2f}",
            ]
        )
    table = markdown_table((*HEADER, "Half-width", "Detectable"), rows)
    return f"{method} against echomen, seeds {', '.join(map(str, chosen))}\n\n{table}"


def divisions(seeds: Sequence[int], limit: int | None = None) -> Iterator[tuple[list[int], list[int]]]:
    """Divide seeds in two halves in every possible way, or in a number of random ways."""
    ways = list(combinations(sorted(seeds), len(seeds) // 2))
    if len(seeds) % 2 == 0:
        ways = ways[: len(ways) // 2]  # the others are the same with the halves exchanged
    if limit is not None and limit < len(ways):
        ways = [ways[place] for place in np.random.default_rng(0).choice(len(ways), limit, replace=False)]
    for way in ways:
        yield list(way), [seed for seed in sorted(seeds) if seed not in way]


def placebo_table(cells: Sequence[FinishedCell], methods: Sequence[str], limit: int | None = None) -> str:
    """Markdown table of the share of divisions of one method's seeds that differ significantly."""
    errors = absolute_errors(cells)
    enough = [name for name in methods or errors if len(errors.get(name, {})) >= 4]
    if not enough:
        raise ValueError("No method has the four seeds that two halves with a spread need.")
    rows = []
    for title, masks in groups_by_error(cells[0].predictions["EF"].to_numpy()).items():
        found = []
        for name in enough:
            for halves in divisions(list(errors[name]), limit):
                one, other = (np.stack([errors[name][seed] for seed in half]) for half in halves)  # (S, N)
                parts, others = ([values[:, mask] for mask in masks] for values in (one, other))
                over_videos = [mine.mean(axis=0) - theirs.mean(axis=0) for mine, theirs in zip(parts, others)]
                found.append((two_way_test(parts, others).p_value, paired_bootstrap(over_videos).p_value))
        shares = (np.array(found) < LEVEL).mean(axis=0)
        rows.append([title, str(len(found)), *(f"{100 * share:.1f} %" for share in shares)])
    about = f"Divisions of the seeds of {', '.join(enough)} that differ significantly at {100 * LEVEL:g} %"
    return f"{about}\n\n{markdown_table(('Error', 'Divisions', 'two-way', 'over videos'), rows)}"


def with_labels(cells: Sequence[FinishedCell], file_list: Path) -> list[FinishedCell]:
    """Take the EF of a FileList.csv as the reference, such as the exact one of simulated videos."""
    labels = pd.read_csv(file_list).set_index("FileName")["EF"]
    names = cells[0].predictions["FileName"]
    missing = names[~names.isin(labels.index)]
    if len(missing):
        raise ValueError(f"{file_list} lacks {len(missing)} of the videos, such as {missing.iloc[0]}.")
    return [replace(cell, predictions=cell.predictions.assign(EF=labels[names].to_numpy())) for cell in cells]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="Results folder of a comparison.")
    parser.add_argument("--method", nargs="+", help="Methods to test against EchoMEN, or to divide.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Seeds to include. Defaults to all common ones.")
    parser.add_argument("--placebo", action="store_true", help="Divide the seeds of every method in two.")
    parser.add_argument("--divisions", type=int, help="Random divisions per method. Defaults to all.")
    parser.add_argument("--labels", type=Path, help="FileList.csv with other labels of the same videos.")
    args = parser.parse_args(arguments)
    cells = read_finished_cells(args.results, [])
    if args.labels is not None:
        cells = with_labels(cells, args.labels)
    if args.placebo:
        print(placebo_table(cells, args.method or [], args.divisions))
    else:
        print("\n\n".join(seed_test_table(cells, method, args.seeds) for method in args.method or ["echonet"]))


if __name__ == "__main__":
    run_script(main)
