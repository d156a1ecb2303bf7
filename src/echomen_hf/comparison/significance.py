"""Tests of every method against EchoMEN that know the videos of TEST and the seeds of the trainings.

A difference of errors is d_sv = delta + a_s + b_v + c_sv, by seed s and video v. Its mean has three sources of chance:
the seeds a, the videos b, and the rest c. Drawing seeds and videos anew (the two-way bootstrap) measures its variance,
which for a mean has a closed form:

    variance = V_videos + max(V_seeds - V_rest, 0)

V_seeds is the sample variance of the means by seed over their number S, V_videos that of the means by video over their
number, and V_rest, the share of c that both contain, that of the residuals over the number of all errors. Drawing
would count c three times, and make the variance of S seeds too small by the factor (S - 1) / S. The variance of few
seeds is itself uncertain: p-values and intervals are those of the t distribution with Satterthwaite's degrees of
freedom (Biometrics Bulletin 2, 1946), and with no fewer than the seeds have.

- `mae`: mean difference of absolute errors, in EF points.
- `gm`: mean difference of their logarithms, reported as the difference of the two geometric means.
- `balanced_mae`: mean of the three category means.

`p_videos` knows the videos only: it says that the difference would hold on other videos for these very trainings. It
inverts the percentile interval of a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
section 13.3): twice the smaller share of resamples on either side of zero, with one added to each count, so that it is
never 0. `q_value` controls the false discovery rate of `p_value` over the methods of one metric and category
(Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, false_discovery_control, t

from ..labels import category_masks
from ..methods import list_methods
from ..metrics import SMALLEST_ERROR
from ..model.heart_failure_category_echomen import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from .results import FinishedCell, absolute_errors
from .variants import REFERENCE_METHOD


__all__ = ["paired_bootstrap", "significance_table", "two_way_test"]

SIGNIFICANCE_COLUMNS = (
    *("method", "category", "metric", "difference", "ci_low", "ci_high", "p_value", "q_value", "p_videos"),
    *("n", "seeds"),
)

RESAMPLES_PER_CHUNK = 500  # evaluated at once, which bounds the memory


class PairedTest(NamedTuple):
    """Result of a test of paired differences."""

    mean: float
    """Mean difference. For several groups the mean of their means."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """Two-sided p-value, NaN if a group is empty."""


def two_way_test(groups: Sequence[ArrayLike], others: Sequence[ArrayLike] | None = None) -> PairedTest:
    """Test whether a mean difference is zero, over videos and over training seeds.

    Args:
        groups: Differences of each group of videos, shape (S, N) each, by seed and video. The means of several groups
            have equal weight. With `others`, the values of one side.
        others: Values of the other side, shape (S', N) each, for the same videos and other seeds.

    Returns:
        Mean difference, 95 % interval and p-value; NaN but for the mean with a single seed, or a single video in a
        group.
    """
    sides = [[np.asarray(group, dtype=np.float64) for group in side] for side in (groups, others) if side is not None]
    share = 1 / len(groups)
    signs = (1, -1)
    by_video = [sum(sign * part.mean(axis=0) for sign, part in zip(signs, parts)) for parts in zip(*sides)]
    if min(values.size for values in by_video) == 0:
        return PairedTest(np.nan, np.nan, np.nan, np.nan)
    mean = float(np.mean([values.mean() for values in by_video]))
    if min(len(side[0]) for side in sides) < 2 or min(values.size for values in by_video) < 2:
        return PairedTest(mean, np.nan, np.nan, np.nan)

    # Every estimate of a variance, with its degrees of freedom.
    videos = [(share**2 * values.var(ddof=1) / values.size, values.size - 1) for values in by_video]
    seeds, rest = [], 0.0
    for side in sides:
        count = len(side[0])
        seeds.append((np.mean([part.mean(axis=1) for part in side], axis=0).var(ddof=1) / count, count - 1))
        for part in side:
            residuals = part - part.mean(axis=1, keepdims=True) - part.mean(axis=0) + part.mean()
            rest += share**2 * (residuals**2).sum() / ((count - 1) * (part.shape[1] - 1) * part.size)
    of_seeds = sum(variance for variance, _ in seeds)
    used = videos if of_seeds <= rest else [*videos, *seeds]
    variance = sum(value for value, _ in videos) + max(of_seeds - rest, 0.0)
    if variance == 0:
        return PairedTest(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    degrees = max(satterthwaite(variance, used), satterthwaite(of_seeds, seeds))
    deviation = np.sqrt(variance)
    half_width = t.ppf(0.975, degrees) * deviation
    p_value = 2 * t.sf(abs(mean) / deviation, degrees)
    return PairedTest(mean, float(mean - half_width), float(mean + half_width), float(p_value))


def satterthwaite(total: float, parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a variance that is estimated from parts, each with degrees of its own."""
    squares = sum(value**2 / degrees for value, degrees in parts)
    return total**2 / squares if squares > 0 else float(min(degrees for _, degrees in parts))


def paired_bootstrap(groups: Sequence[ArrayLike], *, num_resamples: int = 2000, seed: int = 0) -> PairedTest:
    """Test whether the mean of paired differences is zero, over videos.

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
        num_resamples: Number of bootstrap resamples for `p_videos`. With 0 the table is empty.
        seed: Seed of the resampling, the same for all tests.
        reference: Name of the reference method. Defaults to EchoMEN.

    Returns:
        Table with the columns `SIGNIFICANCE_COLUMNS`. A positive difference means larger errors than those of the
        reference. Methods are compared over the seeds that they share with it, in pairs; those that share none are
        left out, and `p_value` needs two. `q_value` controls the false discovery rate over the methods of one metric
        and category, and separately over the settings of sweeps.
    """
    errors = absolute_errors(cells)
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
    logarithms, reference_logarithms = (
        np.log(np.maximum(values, SMALLEST_ERROR)) for values in (errors, reference_errors)
    )

    def add(category: str, metric: str, groups: list[NDArray[np.float64]], scale: float | None = None) -> None:
        test = two_way_test(groups)
        over_videos = [group.mean(axis=0) for group in groups]
        ends: tuple[float, ...] = (test.mean, test.low, test.high)
        if scale is not None:
            # (ratio of the two GMs - 1) x second GM = difference of the GMs
            ends = tuple(scale * np.expm1(end) for end in ends)
        rows.append(
            {
                "category": category,
                "metric": metric,
                **dict(zip(("difference", "ci_low", "ci_high"), map(float, ends), strict=True)),
                "p_value": test.p_value,
                "p_videos": paired_bootstrap(over_videos, num_resamples=num_resamples, seed=seed).p_value,
                "n": sum(group.shape[1] for group in groups),
            }
        )

    difference = errors - reference_errors
    for category in CATEGORY_TITLES:
        mask = masks[category]
        add(category, "mae", [difference[:, mask]])
        gm = float(np.exp(reference_logarithms[:, mask].mean())) if mask.any() else np.nan
        add(category, "gm", [(logarithms - reference_logarithms)[:, mask]], scale=gm)
    add("all", "balanced_mae", [difference[:, masks[category]] for category in HEART_FAILURE_CATEGORIES])
    return rows
