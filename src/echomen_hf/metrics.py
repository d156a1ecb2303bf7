"""Errors, agreement and discrimination of predicted ejection fractions, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from .labels import EF_RANGE, HEART_FAILURE_CATEGORIES, category_masks, label_bins, num_label_bins


__all__ = [
    "AUROC_THRESHOLDS",
    "BandErrors",
    "BlandAltmanLimits",
    "bland_altman_limits",
    "ef_regression_metrics",
    "error_by_band",
    "oracle_predictions",
    "regression_line",
    "validate_predictions",
]

FloatArray = NDArray[np.float64]

AUROC_THRESHOLDS: tuple[float, ...] = tuple(
    sorted({35.0, 45.0, *(low for low, _ in HEART_FAILURE_CATEGORIES.values() if low > EF_RANGE[0])})
)
"""EF in percent below which a patient is a case: category boundaries, 45, and 35 (defibrillator indication)."""

SMALLEST_ERROR = 1e-10
"""Floor of an absolute error in EF points before its logarithm is taken, so that one exact hit does not make GM 0."""

RESAMPLES_PER_CHUNK = 250
"""Bootstrap resamples evaluated at once; bounds the memory, not the result."""


class BandErrors(NamedTuple):
    """Errors per band of reference EF; every field is an array of shape (bands,)."""

    lower: FloatArray
    """Lower edge of the band in percent, inclusive."""
    upper: FloatArray
    """Upper edge of the band in percent, exclusive except for the last."""
    counts: NDArray[np.int64]
    """Samples in the band."""
    errors: FloatArray
    """Mean error of the band; NaN where the band is empty."""


class BlandAltmanLimits(NamedTuple):
    """Bias and 95 % limits of agreement of predicted minus reference EF, in EF points."""

    bias: float
    sd: float
    lower: float
    upper: float


def ef_regression_metrics(
    predictions: ArrayLike,
    references: ArrayLike,
    *,
    bootstrap_samples: int = 0,
    confidence_level: float = 0.95,
    seed: int = 0,
    patients: Sequence[str] | NDArray[Any] | None = None,
) -> dict[str, float]:
    """Measure ejection-fraction predictions over all samples and per heart-failure category.

    Args:
        predictions: Predicted EF in percent, shape (N,); values outside [0, 100] are allowed.
        references: Reference EF in percent, in [0, 100], shape (N,).
        bootstrap_samples: Number of resamples (of patients, shared by all metrics) for percentile intervals; 0 gives
            none.
        confidence_level: Coverage of the intervals: 0.95, or 0.90 for the 5th to 95th percentile that EchoNet-Dynamic
            (Ouyang et al. 2020) quotes.
        seed: Seed of the resampling.
        patients: Patient of every sample, shape (N,). Clips of one patient are not independent: with patients, these
            are resampled, each with all samples. Defaults to a patient per sample.

    Returns:
        A flat dictionary, errors in EF points:

        - `mae`, `gm` (geometric mean of the absolute errors, floored at 1e-10), `rmse`, `bias` (mean of predicted
          minus reference) and `n`, over all samples and, with the suffix `_hfref`, `_hfmref` or `_hfpef`, per category
          of the reference;
        - `balanced_mae`, the mean of the three category MAEs;
        - `r2`, the coefficient of determination, over all samples;
        - `auroc_ef_below_35`, `_40`, `_45`, `_50`, how well predictions discriminate references below the threshold;
        - `<key>_ci_low` and `<key>_ci_high` of each of the above except the counts, with `bootstrap_samples > 0`.

        Undefined values are NaN: the errors of an empty category, `balanced_mae` if any category is empty, `r2` if all
        references are equal, an AUROC if one of its two classes is empty. A resample in which a metric is undefined
        does not count for its interval.
    """
    predicted, reference = validate_predictions(predictions, references)
    if bootstrap_samples < 0:
        raise ValueError(f"`bootstrap_samples` must not be negative, got {bootstrap_samples}.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"`confidence_level` must lie between 0 and 1, such as 0.95, got {confidence_level}.")

    metrics = {name: float(value[0]) for name, value in _metrics(predicted[None], reference[None]).items()}
    if bootstrap_samples > 0:
        if patients is not None and len(patients) != reference.size:
            raise ValueError(f"`patients` must name one per sample, got {len(patients)} for {reference.size}.")
        for name, values in _bootstrap_metrics(predicted, reference, bootstrap_samples, seed, patients).items():
            defined = values[~np.isnan(values)]
            tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
            low, high = np.quantile(defined, tails) if defined.size else (np.nan, np.nan)
            metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = float(low), float(high)
    for category, mask in category_masks(reference).items():
        metrics[_key("n", category)] = int(mask.sum())
    return metrics


def oracle_predictions(expert_predictions: ArrayLike, references: ArrayLike) -> FloatArray:
    """Choose for every sample the expert that is closest to the reference, the oracle of figure 3b of the paper.

    Expert predictions have shape (N, M), references and the result (N,); in a tie, the first expert is chosen.
    """
    experts = np.asarray(expert_predictions, dtype=np.float64)
    reference = np.asarray(references, dtype=np.float64)
    if experts.ndim != 2 or experts.shape[1] == 0 or experts.shape[:1] != reference.shape:
        raise ValueError(
            "`expert_predictions` must have shape (N, M) and `references` shape (N,), "
            f"got {experts.shape} and {reference.shape}."
        )
    incomplete = ~np.isfinite(experts).all(axis=1)
    if incomplete.any():
        raise ValueError(
            f"`expert_predictions` must be finite, but {int(incomplete.sum())} of {len(experts)} samples lack the "
            f"prediction of an expert, the first at index {int(incomplete.argmax())}; a comparison needs all of them."
        )
    best = np.abs(experts - reference[:, None]).argmin(axis=1)
    return experts[np.arange(len(reference)), best]


def error_by_band(
    predictions: ArrayLike,
    references: ArrayLike,
    *,
    band_width: float = 10.0,
    error: Literal["mse", "mae"] = "mse",
) -> BandErrors:
    """Average the error within equally wide bands of the reference EF (figure 1c of the paper, which shows the MSE).

    Args:
        predictions: Predicted EF in percent, shape (N,).
        references: Reference EF in percent, shape (N,).
        band_width: Width of a band in EF points; the bands cover [0, 100].
        error: `"mse"` in squared EF points or `"mae"` in EF points.
    """
    predicted, reference = validate_predictions(predictions, references)
    if error not in ("mse", "mae"):
        raise ValueError(f'`error` must be "mse" or "mae", got {error!r}.')
    deviations = np.abs(predicted - reference)
    bands, num_bands = label_bins(reference, band_width), num_label_bins(band_width)
    counts = np.bincount(bands, minlength=num_bands)
    totals = np.bincount(bands, weights=deviations**2 if error == "mse" else deviations, minlength=num_bands)
    lower = EF_RANGE[0] + band_width * np.arange(num_bands, dtype=np.float64)
    return BandErrors(
        lower=lower,
        upper=np.minimum(lower + band_width, EF_RANGE[1]),
        counts=counts,
        errors=_ratio(totals, counts),
    )


def bland_altman_limits(predictions: ArrayLike, references: ArrayLike) -> BlandAltmanLimits:
    """Compute bias and 95 % limits of agreement, bias ± 1.96 sd of the differences (Bland and Altman 1986).

    Differences are predicted minus reference EF in percent, the standard deviation is that of a sample.
    """
    predicted, reference = validate_predictions(predictions, references)
    if reference.size < 2:
        raise ValueError("Limits of agreement need at least two samples, got one.")
    differences = predicted - reference
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    return BlandAltmanLimits(bias=bias, sd=sd, lower=bias - 1.96 * sd, upper=bias + 1.96 * sd)


def regression_line(predictions: ArrayLike, references: ArrayLike) -> tuple[float, float]:
    """Fit predicted over reference EF by least squares; a slope below 1 means that predictions shrink to the mean.

    Returns:
        Slope and intercept in EF points. NaN if all references are equal.
    """
    predicted, reference = validate_predictions(predictions, references)
    if np.ptp(reference) == 0:
        return np.nan, np.nan
    slope, intercept = np.polyfit(reference, predicted, deg=1)
    return float(slope), float(intercept)


def validate_predictions(predictions: ArrayLike, references: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check that predictions and references can be compared, and convert them to float64."""
    predicted = np.asarray(predictions, dtype=np.float64)
    reference = np.asarray(references, dtype=np.float64)
    for name, values in (("predictions", predicted), ("references", reference)):
        if values.ndim != 1:
            raise ValueError(
                f"`{name}` must have shape (N,), one EF in percent per video, got {values.shape}; "
                "logits of shape (N, 1) need a squeeze(-1)."
            )
    if predicted.size != reference.size:
        raise ValueError(
            f"`predictions` and `references` must pair up, got {predicted.size} and {reference.size} values."
        )
    if reference.size == 0:
        raise ValueError("Metrics need at least one prediction, got none.")
    for name, values in (("predictions", predicted), ("references", reference)):
        _reject(~np.isfinite(values), values, f"`{name}` must be finite", "NaN or infinite")
    low, high = EF_RANGE
    _reject(
        (reference < low) | (reference > high),
        reference,
        f"`references` are ejection fractions in percent, from {low:g} to {high:g}",
        "outside",
    )
    return predicted, reference


def _reject(wrong: NDArray[np.bool_], values: FloatArray, rule: str, fault: str) -> None:
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{rule}: {int(wrong.sum())} of {values.size} are {fault}, the first at index {first} ({values[first]})."
        )


def _metrics(predictions: FloatArray, references: FloatArray) -> dict[str, FloatArray]:
    """Compute every metric along the last axis: (R, N) -> (R,), one row per resample."""
    errors = predictions - references
    magnitudes = np.abs(errors)
    log_magnitudes = np.log(np.maximum(magnitudes, SMALLEST_ERROR))
    metrics: dict[str, FloatArray] = {}
    for category, mask in category_masks(references).items():
        metrics[_key("mae", category)] = _masked_mean(magnitudes, mask)
        metrics[_key("gm", category)] = np.exp(_masked_mean(log_magnitudes, mask))
        metrics[_key("rmse", category)] = np.sqrt(_masked_mean(errors**2, mask))
        metrics[_key("bias", category)] = _masked_mean(errors, mask)
    metrics["balanced_mae"] = np.mean([metrics[_key("mae", name)] for name in HEART_FAILURE_CATEGORIES], axis=0)

    spread = ((references - references.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    # Rounding leaves equal references a tiny spread, hence the comparison of the extremes.
    spread = np.where(np.ptp(references, axis=-1) == 0, 0.0, spread)
    metrics["r2"] = 1 - _ratio((errors**2).sum(axis=-1), spread)

    ranks = rankdata(predictions, axis=-1)
    for threshold in AUROC_THRESHOLDS:
        metrics[f"auroc_ef_below_{threshold:g}"] = _auroc(ranks, references < threshold)
    return metrics


def _auroc(ranks: FloatArray, cases: NDArray[np.bool_]) -> FloatArray:
    """Turn the ranks of the predictions into P(case is predicted lower than control), the Mann-Whitney U statistic."""
    num_cases = cases.sum(axis=-1)
    num_controls = cases.shape[-1] - num_cases
    control_ranks = np.where(cases, 0.0, ranks).sum(axis=-1)
    return _ratio(control_ranks - num_controls * (num_controls + 1) / 2, num_cases * num_controls)


def _bootstrap_metrics(
    predictions: FloatArray,
    references: FloatArray,
    bootstrap_samples: int,
    seed: int,
    patients: Sequence[str] | NDArray[Any] | None,
) -> dict[str, FloatArray]:
    """Evaluate every metric on resamples of the patients, drawn with replacement: (N,) -> (bootstrap_samples,)."""
    generator = np.random.default_rng(seed)
    chunks = []
    names, of_sample = np.unique(patients if patients is not None else [], return_inverse=True)
    if 0 < len(names) < references.size:
        # Resamples differ in length, so each is evaluated on its own.
        samples = [np.flatnonzero(of_sample == number) for number in range(len(names))]
        for _ in range(bootstrap_samples):
            drawn = generator.integers(len(names), size=len(names))
            chosen = np.concatenate([samples[number] for number in drawn])
            chunks.append(_metrics(predictions[None, chosen], references[None, chosen]))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    for start in range(0, bootstrap_samples, RESAMPLES_PER_CHUNK):
        num_resamples = min(RESAMPLES_PER_CHUNK, bootstrap_samples - start)
        chosen = generator.integers(references.size, size=(num_resamples, references.size))
        chunks.append(_metrics(predictions[chosen], references[chosen]))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _masked_mean(values: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    return _ratio(np.where(mask, values, 0.0).sum(axis=-1), mask.sum(axis=-1))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> FloatArray:
    """Divide, with NaN where the denominator is zero."""
    undefined = np.full(np.shape(numerator), np.nan, dtype=np.float64)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _key(name: str, category: str) -> str:
    return name if category == "all" else f"{name}_{category}"
