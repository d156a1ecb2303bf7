"""Paired bootstrap tests of every method against EchoMEN.

The unit is a video of TEST. What is compared is its error under the one method and under the other, each averaged over
the seeds that both have; so the test speaks about the videos that might have been drawn, for trainings such as these.
How much a training depends on its seed is what the standard deviation in the tables tells.

- `mae`: mean over videos of the difference of absolute errors, in EF points.
- `gm`: mean over videos of the difference of their logarithms, which is the logarithm of the ratio of the two GMs; the
  difference that is reported is that of the GMs.
- `balanced_mae`: mean of the three category means; videos are drawn within their categories.

The two-sided p-value inverts the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
section 13.3): twice the smaller share of resamples on either side of zero, each counted with one more, so that it is
never 0. `q_value` controls the false discovery rate over the methods of one metric and category (Benjamini and
Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, false_discovery_control

from ..labels import category_masks
from ..methods import list_methods
from ..metrics import SMALLEST_ERROR
from ..model.heart_failure_category_echomen import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from .results import FinishedCell
from .variants import REFERENCE_METHOD


__all__ = ["SIGNIFICANCE_COLUMNS", "PairedTest", "paired_bootstrap", "significance_table"]

SIGNIFICANCE_COLUMNS = (
    *("method", "category", "metric", "difference", "ci_low", "ci_high", "p_value", "q_value", "n", "seeds"),
)

RESAMPLES_PER_CHUNK = 500
"""Resamples evaluated at once; bounds the memory."""


class PairedTest(NamedTuple):
    """Result of a paired bootstrap test."""

    mean: float
    """Mean difference; for groups the mean of their means."""
    low: float
    """Lower end of the 95 % percentile interval."""
    high: float
    """Upper end."""
    p_value: float
    """Two-sided p-value; NaN if a group is empty."""


def paired_bootstrap(groups: Sequence[ArrayLike], *, num_resamples: int = 2000, seed: int = 0) -> PairedTest:
    """Test whether the mean of paired differences is zero.

    Args:
        groups: Differences of each group, shape (N,) each; one group, or several whose means count alike.
        num_resamples: Bootstrap resamples, drawn within each group.
        seed: Seed of the resampling.

    Returns:
        Mean, interval and p-value.
    """
    samples = [np.asarray(group, dtype=np.float64) for group in groups]
    if min(sample.size for sample in samples) == 0:
        return PairedTest(np.nan, np.nan, np.nan, np.nan)
    if max(sample.size for sample in samples) == 1:
        # One video has nothing to be drawn from.
        return PairedTest(float(np.mean([sample.mean() for sample in samples])), np.nan, np.nan, np.nan)
    # scipy refuses to draw from a sample of one; drawing from it twice is the same.
    samples = [np.repeat(sample, 2) if sample.size == 1 else sample for sample in samples]

    def mean_of_means(*drawn: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.mean([values.mean(axis=axis) for values in drawn], axis=0)

    found = bootstrap(
        samples,
        mean_of_means,
        n_resamples=num_resamples,
        batch=RESAMPLES_PER_CHUNK,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    drawn = found.bootstrap_distribution
    below, above = (1 + np.sum(drawn <= 0)) / (1 + drawn.size), (1 + np.sum(drawn >= 0)) / (1 + drawn.size)
    interval = found.confidence_interval
    return PairedTest(
        float(mean_of_means(*samples)),
        float(interval.low),
        float(interval.high),
        float(min(1.0, 2 * min(below, above))),
    )


def significance_table(
    cells: Sequence[FinishedCell], *, num_resamples: int = 2000, seed: int = 0, reference: str = REFERENCE_METHOD
) -> pd.DataFrame:
    """Test every method against one, which is EchoMEN, over all videos and per heart-failure category.

    Args:
        cells: Finished cells.
        num_resamples: Bootstrap resamples; 0 gives no table.
        seed: Seed of the resampling, the same for all tests.
        reference: Name of the method that the others are compared with.

    Returns:
        Table with the columns `SIGNIFICANCE_COLUMNS`; a positive difference means that the method errs more than the
        reference; `q_value` controls the false discovery rate over the registered methods, or else over the settings
        of sweeps, of one metric and category (Benjamini and Hochberg 1995). It is empty without a cell of the
        reference. Methods that share no seed with it are left out.
    """
    errors: dict[str, dict[int, NDArray[np.float64]]] = {}
    for cell in cells:
        deviations = cell.predictions["EF_pred"].to_numpy() - cell.predictions["EF"].to_numpy()
        errors.setdefault(cell.method, {})[cell.seed] = np.abs(deviations)
    rows: list[dict[str, object]] = []
    if reference in errors and num_resamples > 0:
        masks = category_masks(cells[0].predictions["EF"].to_numpy())
        for method, by_seed in errors.items():
            shared = sorted(by_seed.keys() & errors[reference].keys())
            if method == reference or not shared:
                continue
            ours = np.stack([by_seed[number] for number in shared])  # (S, N)
            theirs = np.stack([errors[reference][number] for number in shared])
            tests = tests_of_metrics(ours, theirs, masks, num_resamples, seed)
            rows += [{"method": method, **row, "seeds": len(shared)} for row in tests]
    table = pd.DataFrame(rows, columns=list(SIGNIFICANCE_COLUMNS))
    # Settings of sweeps are many and much alike, and must not weigh on the tests of the methods.
    is_method = table["method"].isin(list_methods())
    for _, group in table.groupby(["metric", "category", is_method], sort=False):
        defined = group["p_value"].dropna().astype(float)
        if len(defined):
            table.loc[defined.index, "q_value"] = false_discovery_control(defined.to_numpy())
    return table


def tests_of_metrics(
    errors: NDArray[np.float64],
    reference_errors: NDArray[np.float64],
    masks: Mapping[str, NDArray[np.bool_]],
    num_resamples: int,
    seed: int,
) -> list[dict[str, object]]:
    """Test one method against another by every metric.

    Args:
        errors: Absolute errors of the method in EF points, shape (S, N), by seed and video.
        reference_errors: Those of the other method, shape (S, N).
        masks: Videos of every category, shape (N,) each.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        Rows of the table, without method and seeds.
    """
    rows: list[dict[str, object]] = []
    difference = (errors - reference_errors).mean(axis=0)  # (S, N) -> (N,)
    logarithms = [np.log(np.maximum(values, SMALLEST_ERROR)).mean(axis=0) for values in (errors, reference_errors)]

    def add(category: str, metric: str, test: PairedTest, n: int, scale: float | None = None) -> None:
        ends: tuple[float, ...] = (test.mean, test.low, test.high)
        if scale is not None:
            # The ratio of two GMs less one, times the second, is their difference.
            ends = tuple(scale * np.expm1(end) for end in ends)
        values = dict(zip(("difference", "ci_low", "ci_high"), map(float, ends), strict=True))
        rows.append({"category": category, "metric": metric, **values, "p_value": test.p_value, "n": n})

    for category in CATEGORY_TITLES:
        mask, n = masks[category], int(masks[category].sum())
        add(category, "mae", paired_bootstrap([difference[mask]], num_resamples=num_resamples, seed=seed), n)
        ratio = paired_bootstrap([(logarithms[0] - logarithms[1])[mask]], num_resamples=num_resamples, seed=seed)
        gm = float(np.exp(logarithms[1][mask].mean())) if n else np.nan
        add(category, "gm", ratio, n, scale=gm)
    balanced = [difference[masks[category]] for category in HEART_FAILURE_CATEGORIES]
    add("all", "balanced_mae", paired_bootstrap(balanced, num_resamples=num_resamples, seed=seed), difference.size)
    return rows
