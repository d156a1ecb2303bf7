"""Paired bootstrap tests of every method against EchoMEN.

The unit is a video of TEST. Its error under one method is compared with its error under another, each averaged over
the seeds that both methods have. Only videos are resampled, never trainings: a small p-value says that the difference
would hold on other videos for these trainings, and nothing about trainings with other seeds.

- `mae`: mean difference of absolute errors, in EF points.
- `gm`: mean difference of their logarithms, reported as the difference of the two geometric means.
- `balanced_mae`: mean of the three category means. Videos are drawn within their categories.

The two-sided p-value inverts the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
section 13.3): twice the smaller share of resamples on either side of zero, with one added to each count, so that it is
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


__all__ = ["paired_bootstrap", "significance_table"]

SIGNIFICANCE_COLUMNS = (
    *("method", "category", "metric", "difference", "ci_low", "ci_high", "p_value", "q_value", "n", "seeds"),
)

RESAMPLES_PER_CHUNK = 500  # evaluated at once, which bounds the memory


class PairedTest(NamedTuple):
    """Result of a paired bootstrap test."""

    mean: float
    """Mean difference. For several groups the mean of their means."""
    low: float
    """Lower end of the 95 % percentile interval."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """Two-sided p-value, NaN if a group is empty."""


def paired_bootstrap(groups: Sequence[ArrayLike], *, num_resamples: int = 2000, seed: int = 0) -> PairedTest:
    """Test whether the mean of paired differences is zero.

    Args:
        groups: Differences of each group, shape (N,) each. The means of several groups have equal weight.
        num_resamples: Number of bootstrap resamples, drawn within each group.
        seed: Seed of the resampling.

    Returns:
        Mean, interval and p-value.
    """
    samples = [np.asarray(group, dtype=np.float64) for group in groups]
    if min(sample.size for sample in samples) == 0:
        return PairedTest(np.nan, np.nan, np.nan, np.nan)
    if max(sample.size for sample in samples) == 1:
        # There is nothing to resample in one video.
        return PairedTest(float(np.mean([sample.mean() for sample in samples])), np.nan, np.nan, np.nan)
    # scipy refuses a sample of one, and two equal values give the same means.
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
    """Test every method against a reference method, over all videos and per heart-failure category.

    Args:
        cells: Finished cells.
        num_resamples: Number of bootstrap resamples. With 0 the table is empty.
        seed: Seed of the resampling, the same for all tests.
        reference: Name of the reference method. Defaults to EchoMEN.

    Returns:
        Table with the columns `SIGNIFICANCE_COLUMNS`. A positive difference means larger errors than those of the
        reference. `q_value` controls the false discovery rate over the methods of one metric and category, and
        separately over the settings of sweeps. Methods that share no seed with the reference are left out.
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
    # Settings of sweeps are many and similar, and must not weaken the tests of the methods.
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
    """Test one method against another by every metric. Errors have the shape (S, N), by seed and video."""
    rows: list[dict[str, object]] = []
    difference = (errors - reference_errors).mean(axis=0)  # (S, N) -> (N,)
    logarithms = [np.log(np.maximum(values, SMALLEST_ERROR)).mean(axis=0) for values in (errors, reference_errors)]

    def add(category: str, metric: str, test: PairedTest, n: int, scale: float | None = None) -> None:
        ends: tuple[float, ...] = (test.mean, test.low, test.high)
        if scale is not None:
            # (ratio of the two GMs - 1) x second GM = difference of the GMs
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
