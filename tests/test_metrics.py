import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from echomen_hf.metrics import (
    AUROC_THRESHOLDS,
    bland_altman_limits,
    ef_regression_metrics,
    error_by_band,
    oracle_predictions,
)


# One reference in every category and two in the last; errors 2, -4, 8 and -1.
REFERENCES = [30.0, 45.0, 60.0, 70.0]
PREDICTIONS = [32.0, 41.0, 68.0, 69.0]


@pytest.fixture
def simulated():
    """References spread like a test split, predictions that regress to the mean; rounding makes ties."""
    generator = np.random.default_rng(0)
    references = np.concatenate(
        [generator.uniform(10, 40, 160), generator.uniform(40, 50, 125), generator.uniform(50, 80, 992)]
    )
    predictions = (58 + 0.8 * (references - 58) + generator.normal(0, 5, references.size)).round()
    return predictions, references


def test_hand_worked_errors():
    metrics = ef_regression_metrics(PREDICTIONS, REFERENCES)
    expected = {
        "mae": 15 / 4,
        "gm": 64**0.25,
        "rmse": (85 / 4) ** 0.5,
        "bias": 5 / 4,
        "mae_hfref": 2,
        "mae_hfmref": 4,
        "mae_hfpef": 4.5,
        "gm_hfref": 2,
        "gm_hfmref": 4,
        "gm_hfpef": 8**0.5,
        "rmse_hfref": 2,
        "rmse_hfmref": 4,
        "rmse_hfpef": 32.5**0.5,
        "bias_hfref": 2,
        "bias_hfmref": -4,
        "bias_hfpef": 3.5,
        "balanced_mae": (2 + 4 + 4.5) / 3,
        # The references are 21.25, 6.25, 8.75 and 18.75 points from their mean of 51.25.
        "r2": 1 - 85 / (21.25**2 + 6.25**2 + 8.75**2 + 18.75**2),
        "auroc_ef_below_35": 1,
        "auroc_ef_below_40": 1,
        "auroc_ef_below_45": 1,
        "auroc_ef_below_50": 1,
        "n": 4,
        "n_hfref": 1,
        "n_hfmref": 1,
        "n_hfpef": 2,
    }
    assert metrics == pytest.approx(expected, rel=1e-13)


def test_agrees_with_scikit_learn(simulated):
    predictions, references = simulated
    metrics = ef_regression_metrics(predictions, references)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(references, predictions), rel=1e-12)
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(references, predictions), rel=1e-12)
    assert metrics["r2"] == pytest.approx(r2_score(references, predictions), rel=1e-12)
    for threshold in AUROC_THRESHOLDS:
        expected = roc_auc_score(references < threshold, -predictions)
        assert metrics[f"auroc_ef_below_{threshold:g}"] == pytest.approx(expected, rel=1e-12)
    low = references < 40
    assert metrics["mae_hfref"] == pytest.approx(mean_absolute_error(references[low], predictions[low]), rel=1e-12)


def test_auroc_thresholds_are_those_of_the_report():
    assert AUROC_THRESHOLDS == (35, 40, 45, 50)


def test_auroc_counts_ties_as_half():
    # The case below 35 is predicted lower than one control and level with the other: (1 + 0.5) / 2.
    metrics = ef_regression_metrics([50.0, 50.0, 60.0], [30.0, 55.0, 65.0])
    assert metrics["auroc_ef_below_35"] == 0.75


@pytest.mark.parametrize(
    ("reference", "category"),
    [(39.999, "hfref"), (40.0, "hfmref"), (49.999, "hfmref"), (50.0, "hfpef"), (100.0, "hfpef")],
)
def test_boundaries_count_in_the_higher_category(reference, category):
    metrics = ef_regression_metrics([reference + 3], [reference])
    assert metrics[f"n_{category}"] == 1
    assert metrics[f"mae_{category}"] == pytest.approx(3)
    assert metrics["n_hfref"] + metrics["n_hfmref"] + metrics["n_hfpef"] == 1


def test_an_exact_hit_counts_as_1e_10_in_the_geometric_mean():
    assert ef_regression_metrics([60.0, 64.0], [60.0, 60.0])["gm"] == pytest.approx((1e-10 * 4) ** 0.5)


def test_what_is_undefined_is_nan_and_every_key_is_there():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = ef_regression_metrics([61.0, 58.0], [60.1, 60.1], bootstrap_samples=20)
    undefined = {name for name, value in metrics.items() if np.isnan(value)}
    assert {"mae_hfref", "gm_hfmref", "balanced_mae", "r2", "auroc_ef_below_50"} <= undefined
    assert {"balanced_mae_ci_low", "r2_ci_high", "auroc_ef_below_35_ci_low"} <= undefined
    assert metrics["n_hfref"] == 0
    assert metrics["mae_hfpef"] == pytest.approx(1.5)
    assert metrics.keys() == ef_regression_metrics(PREDICTIONS, REFERENCES, bootstrap_samples=1).keys()


def test_order_of_samples_does_not_matter(simulated):
    predictions, references = simulated
    order = np.random.default_rng(1).permutation(len(references))
    assert ef_regression_metrics(predictions[order], references[order]) == pytest.approx(
        ef_regression_metrics(predictions, references), rel=1e-12
    )


def test_lists_arrays_and_tensors_are_alike():
    from_lists = ef_regression_metrics(PREDICTIONS, REFERENCES)
    assert ef_regression_metrics(np.array(PREDICTIONS), np.array(REFERENCES)) == from_lists
    assert ef_regression_metrics(torch.tensor(PREDICTIONS), torch.tensor(REFERENCES)) == from_lists


def test_values_are_plain_numbers():
    metrics = ef_regression_metrics(PREDICTIONS, REFERENCES, bootstrap_samples=2)
    assert {type(value) for value in metrics.values()} == {float, int}
    assert all(type(metrics[name]) is int for name in ("n", "n_hfref", "n_hfmref", "n_hfpef"))


def test_intervals_come_with_every_metric_and_contain_it(simulated):
    metrics = ef_regression_metrics(*simulated, bootstrap_samples=300)
    names = [name for name in metrics if "_ci_" not in name and name not in ("n", "n_hfref", "n_hfmref", "n_hfpef")]
    assert len(names) == 22
    for name in names:
        assert metrics[f"{name}_ci_low"] < metrics[name] < metrics[f"{name}_ci_high"], name
    assert not any(name.startswith("n_ci") or "n_hfref_ci" in name for name in metrics)


def test_intervals_are_those_of_scipy(simulated):
    from scipy.stats import bootstrap

    predictions, references = simulated
    metrics = ef_regression_metrics(predictions, references, bootstrap_samples=4000, confidence_level=0.9)
    interval = bootstrap(
        (np.abs(predictions - references),),
        np.mean,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    # Two Monte Carlo estimates of the same quantiles, of a mean whose standard error is 0.1.
    assert metrics["mae_ci_low"] == pytest.approx(interval.low, abs=0.015)
    assert metrics["mae_ci_high"] == pytest.approx(interval.high, abs=0.015)


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(7)
    true_mae = 4 * np.sqrt(2 / np.pi)
    references = np.full(80, 60.0)
    covered = 0
    for repetition in range(200):
        predictions = references + generator.normal(0, 4, size=80)
        metrics = ef_regression_metrics(
            predictions, references, bootstrap_samples=200, confidence_level=0.8, seed=repetition
        )
        covered += metrics["mae_ci_low"] <= true_mae <= metrics["mae_ci_high"]
    # Binomial sd of the rate is 0.028; the percentile interval is a little too short at n = 80.
    assert 0.71 < covered / 200 < 0.87


def test_seed_decides_the_intervals(simulated):
    first, again, other = (ef_regression_metrics(*simulated, bootstrap_samples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["mae_ci_low"] != other["mae_ci_low"]
    assert first["mae"] == other["mae"]


def test_resamples_are_drawn_alike_whatever_the_chunk(simulated, monkeypatch):
    expected = ef_regression_metrics(*simulated, bootstrap_samples=25)
    monkeypatch.setattr("echomen_hf.metrics.RESAMPLES_PER_CHUNK", 10)
    assert ef_regression_metrics(*simulated, bootstrap_samples=25) == expected


def test_higher_confidence_gives_wider_intervals(simulated):
    narrow = ef_regression_metrics(*simulated, bootstrap_samples=200, confidence_level=0.90)
    wide = ef_regression_metrics(*simulated, bootstrap_samples=200, confidence_level=0.95)
    assert wide["mae_ci_low"] < narrow["mae_ci_low"] < narrow["mae_ci_high"] < wide["mae_ci_high"]


def test_resamples_without_a_category_are_left_out_of_its_interval():
    # The only HFrEF sample is missing from some 37 % of the resamples; wherever it is there, its error is 2.
    metrics = ef_regression_metrics(PREDICTIONS, REFERENCES, bootstrap_samples=200)
    assert metrics["mae_hfref_ci_low"] == metrics["mae_hfref_ci_high"] == 2


def test_a_thousand_resamples_of_the_test_split_take_seconds(simulated):
    start = time.process_time()
    ef_regression_metrics(*simulated, bootstrap_samples=1000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "at least one prediction, got none"),
        ([50.0, 60.0], [50.0], "pair up, got 2 and 1"),
        ([[50.0], [60.0]], [50.0, 60.0], r"`predictions` must have shape \(N,\).*got \(2, 1\).*squeeze"),
        (50.0, [50.0], r"`predictions` must have shape \(N,\)"),
        ([50.0], [[50.0]], r"`references` must have shape \(N,\)"),
        ([50.0, np.nan, np.inf], [50.0, 50.0, 50.0], r"`predictions` must be finite: 2 of 3.*index 1 \(nan\)"),
        ([50.0, 50.0], [50.0, np.nan], r"`references` must be finite: 1 of 2.*index 1"),
        ([50.0, 50.0], [50.0, 100.5], r"percent, from 0 to 100: 1 of 2 are outside, the first at index 1 \(100.5\)"),
        ([50.0], [-0.1], "from 0 to 100"),
    ],
)
def test_input_that_cannot_be_compared_is_refused(predictions, references, message):
    for measure in (ef_regression_metrics, error_by_band, bland_altman_limits):
        with pytest.raises(ValueError, match=message):
            measure(predictions, references)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap_samples": -1}, "bootstrap_samples.*negative, got -1"),
        ({"confidence_level": 95}, "between 0 and 1, such as 0.95, got 95"),
        ({"confidence_level": 0}, "between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ef_regression_metrics(PREDICTIONS, REFERENCES, **options)


def test_predictions_outside_the_range_are_measured():
    assert ef_regression_metrics([-2.0, 105.0], [8.0, 95.0])["mae"] == 10


def test_the_oracle_takes_the_nearest_expert_of_every_sample():
    experts = [[35.0, 28.0, 31.0], [45.0, 40.0, 50.0], [57.0, 63.0, 80.0]]
    # In the last row experts 0 and 1 are equally near: the first one counts.
    np.testing.assert_array_equal(oracle_predictions(experts, [30.0, 44.0, 60.0]), [31, 45, 57])


def test_the_oracle_is_never_worse_than_an_expert():
    generator = np.random.default_rng(4)
    references = generator.uniform(10, 80, size=100)
    experts = references[:, None] + generator.normal(0, 6, size=(100, 3))
    oracle_errors = np.abs(oracle_predictions(experts, references) - references)
    np.testing.assert_array_equal(oracle_errors, np.abs(experts - references[:, None]).min(axis=1))


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ([50.0, 60.0], r"shape \(N, M\).*got \(2,\) and \(2,\)"),
        ([[50.0, 60.0]], r"got \(1, 2\) and \(2,\)"),
        (np.empty((2, 0)), r"got \(2, 0\)"),
        ([[50.0, 60.0], [50.0, np.nan]], "1 of 2 samples lack the prediction of an expert, the first at index 1"),
    ],
)
def test_the_oracle_needs_every_expert_for_every_sample(experts, message):
    with pytest.raises(ValueError, match=message):
        oracle_predictions(experts, [50.0, 60.0])


def test_errors_per_band_are_hand_worked():
    references, predictions = [31.0, 39.0, 40.0, 100.0], [33.0, 35.0, 45.0, 99.0]
    bands = error_by_band(predictions, references)
    np.testing.assert_array_equal(bands.lower, np.arange(0, 100, 10))
    np.testing.assert_array_equal(bands.upper, np.arange(10, 110, 10))
    assert bands.counts.tolist() == [0, 0, 0, 2, 1, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(bands.errors, [*[np.nan] * 3, (4 + 16) / 2, 25, *[np.nan] * 4, 1])
    np.testing.assert_allclose(error_by_band(predictions, references, error="mae").errors[[3, 4, 9]], [3, 5, 1])


def test_the_last_band_is_narrower_if_the_width_does_not_divide_the_range():
    bands = error_by_band([96.0], [97.0], band_width=15)
    assert (bands.lower[-1], bands.upper[-1], bands.errors[-1]) == (90, 100, 1)


def test_an_unknown_band_error_is_refused():
    with pytest.raises(ValueError, match='"mse" or "mae", got \'rmse\''):
        error_by_band(PREDICTIONS, REFERENCES, error="rmse")


def test_limits_of_agreement_are_hand_worked():
    limits = bland_altman_limits([52.0, 58.0, 66.0], [50.0, 60.0, 60.0])
    # Differences 2, -2 and 6: mean 2, sample sd 4.
    assert limits == pytest.approx((2, 4, 2 - 1.96 * 4, 2 + 1.96 * 4))


def test_limits_of_agreement_need_two_samples():
    with pytest.raises(ValueError, match="at least two samples, got one"):
        bland_altman_limits([50.0], [50.0])


class TestPatients:
    def test_clips_of_one_patient_widen_the_intervals(self):
        generator = np.random.default_rng(0)
        references = np.repeat(generator.uniform(25, 70, 30), 8)
        predictions = references + np.repeat(generator.normal(0, 5, 30), 8)
        patients = np.repeat([f"p{number}" for number in range(30)], 8)

        def width(**options):
            found = ef_regression_metrics(predictions, references, bootstrap_samples=300, **options)
            return found["mae_ci_high"] - found["mae_ci_low"]

        # Eight copies carry no more information than one: sqrt(8) is 2.8.
        assert 2.2 < width(patients=patients) / width() < 3.5

    def test_a_patient_per_sample_is_the_ordinary_bootstrap(self):
        generator = np.random.default_rng(1)
        references, names = generator.uniform(20, 70, 40), [str(number) for number in range(40)]
        predictions = references + generator.normal(0, 4, 40)
        plain = ef_regression_metrics(predictions, references, bootstrap_samples=50)
        assert ef_regression_metrics(predictions, references, bootstrap_samples=50, patients=names) == plain

    def test_intervals_are_those_of_whole_patients(self):
        # Two patients with errors of 1 and 3: a resample has a mean error of 1, 2 (weighted by clips) or 3.
        found = ef_regression_metrics(
            [51, 51, 51, 63], [50, 50, 50, 60], bootstrap_samples=400, patients=["a", "a", "a", "b"]
        )
        assert (found["mae_ci_low"], found["mae"], found["mae_ci_high"]) == (1.0, 1.5, 3.0)

    def test_as_many_patients_as_samples(self):
        with pytest.raises(ValueError, match="name one per sample, got 1 for 2"):
            ef_regression_metrics([50, 40], [51, 44], bootstrap_samples=5, patients=["a"])
