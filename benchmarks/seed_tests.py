"""Test a method against EchoMEN over training seeds, which the p-values of a comparison do not do.

    python -m benchmarks.seed_tests docs/results/more_videos --method echonet

"p over seeds" is from a paired t-test, "p over videos" from the paired bootstrap of a comparison. "Detectable" is the
difference that the bootstrap would find with a power of 80 %.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import norm, ttest_rel

from echomen_hf.cli.command_line import run_script
from echomen_hf.comparison import significance_table
from echomen_hf.comparison.results import FinishedCell, long_table, read_finished_cells
from echomen_hf.evaluation.report import METRIC_TITLES, markdown_table
from echomen_hf.model.heart_failure_category_echomen import CATEGORY_TITLES


ERRORS = (*(("mae", category) for category in CATEGORY_TITLES), ("balanced_mae", "all"))
HEADER = ("Error", "Mean", "EchoMEN", "Difference", "p over seeds", "p over videos", "Half-width", "Detectable")


def seed_test_table(cells: Sequence[FinishedCell], method: str, seeds: Sequence[int] | None = None) -> str:
    """Markdown table of the tests of a method against EchoMEN, over all common seeds or some of them."""
    common = {cell.seed for cell in cells if cell.method == method} & {
        cell.seed for cell in cells if cell.method == "echomen"
    }
    chosen = sorted(common & set(seeds) if seeds else common)
    if len(chosen) < 2:
        raise ValueError(f"{method} and echomen have seeds {sorted(common)} in common; at least two are needed.")
    kept = [cell for cell in cells if cell.seed in chosen and cell.method in (method, "echomen")]
    values = long_table(kept).pivot_table(index=["metric", "category", "seed"], columns="method", values="value")
    videos = significance_table(kept).set_index(["method", "metric", "category"])
    z = norm.ppf(0.975)
    rows = []
    for metric, category in ERRORS:
        own, reference = (values.loc[metric, category][name] for name in (method, "echomen"))
        test = videos.loc[method, metric, category]
        half_width = (test["ci_high"] - test["ci_low"]) / 2
        rows.append(
            [
                f"{METRIC_TITLES[metric]} {CATEGORY_TITLES[category]}",
                *(f"{value:.2f}" for value in (own.mean(), reference.mean(), (own - reference).mean())),
                *(f"{p:.3f}" for p in (ttest_rel(own, reference).pvalue, test["p_value"])),
                f"{half_width:.2f}",
                f"{half_width / z * (z + norm.ppf(0.8)):.2f}",
            ]
        )
    return f"{method} against echomen, seeds {', '.join(map(str, chosen))}\n\n{markdown_table(HEADER, rows)}"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="Results folder of a comparison.")
    parser.add_argument("--method", default="echonet", help="Method to test against EchoMEN.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Seeds to include. Defaults to all common ones.")
    args = parser.parse_args(arguments)
    print(seed_test_table(read_finished_cells(args.results, []), args.method, args.seeds))


if __name__ == "__main__":
    run_script(main)
