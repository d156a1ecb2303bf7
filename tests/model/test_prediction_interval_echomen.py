"""Conformal prediction intervals."""

import json

import numpy as np
import pytest

from echomen_hf.model.prediction_interval_echomen import calibrate_intervals, check_calibration, prediction_interval


def calibration(**offsets: tuple[float, float]) -> dict:
    return {"coverage": 0.9, "offsets": {name: list(pair) for name, pair in offsets.items()}}


def test_ranks_by_hand() -> None:
    # 39 healthy hearts with errors -19 ... 19: the 2nd lowest and 2nd highest of 40 gaps leave 5 % on each side.
    errors = np.arange(39) - 19.0
    labels = np.full(39, 70.0)
    found = calibrate_intervals(labels - np.random.default_rng(0).permutation(errors), labels, coverage=0.9)
    assert found["offsets"]["hfpef"] == [-18.0, 18.0]
    assert found["num_videos"] == {"hfref": 0, "hfmref": 0, "hfpef": 39}


def test_ranks_move_by_as_little_as_a_group_needs() -> None:
    # Of 79 errors, 4 on each side do not count. One group errs from 0 to 48, the other one from 49 to 78.
    errors, groups = np.arange(79.0), np.repeat(["a", "b"], [49, 30])
    labels = np.full(79, 70.0)
    assert calibrate_intervals(labels - errors, labels)["offsets"]["hfpef"] == [3.0, 75.0]
    # 46 of 49 and 27 of 30 are held, both at least 0.89.
    assert calibrate_intervals(labels - errors, labels, groups=groups)["offsets"]["hfpef"] == [3.0, 75.0]
    # Of 20 in the upper group 18 are to be held, one more than 17: the range moves up by one.
    groups = np.repeat(["a", "b"], [59, 20])
    assert calibrate_intervals(labels - errors, labels, groups=groups)["offsets"]["hfpef"] == [4.0, 76.0]
    # Of two such groups neither can be brought to 0.89 without the other: each is to lose as little as possible.
    groups = np.repeat(["a", "b", "c"], [20, 39, 20])
    assert calibrate_intervals(labels - errors, labels, groups=groups)["offsets"]["hfpef"] == [3.0, 75.0]


def test_every_group_is_held_where_one_errs_more() -> None:
    rng = np.random.default_rng(3)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = rng.choice(["good", "bad"], count)
        return 62 + np.where(groups == "bad", rng.normal(3, 6.0, count), rng.normal(0, 5, count)), groups

    def shares(**options: np.ndarray) -> list[float]:
        low, high = calibrate_intervals(calibrating, np.full(len(calibrating), 62.0), **options)["offsets"]["hfpef"]
        inside = (low <= 62 - further) & (62 - further <= high)
        return [inside[of_further == name].mean() for name in ("good", "bad")]

    (calibrating, of_calibrating), (further, of_further) = draw(20000), draw(20000)
    good, bad = shares()
    assert bad < 0.885 < 0.915 < good
    good, bad = shares(groups=of_calibrating)
    assert bad == pytest.approx(0.89, abs=0.008)
    assert good == pytest.approx(0.91, abs=0.008)


def test_a_category_with_too_few_videos_rules_nothing_out() -> None:
    labels = np.array([20.0] * 18 + [60.0] * 60)
    found = calibrate_intervals(labels + 1, labels)
    assert found["offsets"]["hfref"] == [-100.0, 100.0]
    assert prediction_interval(30.0, found)[0] == 0.0
    assert prediction_interval(80.0, found) == (0.0, 80.0)  # a weak heart cannot be ruled out


def test_the_interval_joins_what_each_category_allows() -> None:
    narrow = calibration(hfref=(-3, 2), hfmref=(-6, 4), hfpef=(-8, 9))
    assert prediction_interval(70.0, narrow) == (62.0, 79.0)
    # 52: values from 46 to 50 fit the errors of the middle category, values from 50 to 61 those of the upper one.
    assert prediction_interval(52.0, narrow) == (46.0, 61.0)
    assert prediction_interval(41.0, narrow) == (38.0, 50.0)


def test_intervals_stay_on_the_scale() -> None:
    wide = calibration(hfref=(-30, 30), hfmref=(-30, 30), hfpef=(-30, 30))
    assert prediction_interval(5.0, wide) == (0.0, 35.0)
    assert prediction_interval(95.0, wide) == (65.0, 100.0)
    assert prediction_interval(130.0, wide) == prediction_interval(100.0, wide) == (70.0, 100.0)
    assert prediction_interval(-5.0, wide) == prediction_interval(0.0, wide) == (0.0, 30.0)
    assert np.isnan(prediction_interval(np.nan, wide)).all()


def test_interval_includes_the_prediction_even_if_errors_point_away_from_it() -> None:
    biased = calibration(hfref=(20, 25), hfmref=(-30, -20), hfpef=(-40, -35))
    assert prediction_interval(30.0, biased) == (30.0, 55.0)
    assert prediction_interval(45.0, calibration(hfref=(10, 20), hfmref=(2, 4), hfpef=(8, 9))) == (45.0, 54.0)


def test_coverage_holds_in_every_category() -> None:
    rng = np.random.default_rng(7)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice([30.0, 45.0, 62.0], count, p=[0.15, 0.15, 0.7]) + rng.uniform(-5, 5, count)
        # Regression to the mean and heavier errors for weak hearts, as models have them.
        return 55 + 0.8 * (labels - 55) + rng.standard_t(4, count) * np.where(labels < 50, 4, 2), labels

    found = calibrate_intervals(*draw(6000))
    predictions, labels = draw(20000)
    ends = np.array([prediction_interval(prediction, found) for prediction in predictions])
    inside = (ends[:, 0] <= labels) & (labels <= ends[:, 1])
    for low, high in ((0, 40), (40, 50), (50, 101)):
        share = inside[(labels >= low) & (labels < high)].mean()
        assert 0.885 <= share <= 0.95, (low, share)


def test_calibration_survives_json() -> None:
    labels = np.linspace(20, 80, 300)
    found = calibrate_intervals(labels + np.sin(labels), labels, coverage=0.8)
    assert json.loads(json.dumps(found)) == found
    check_calibration({**found, "protocol": "windows"})


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90])
def test_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate_intervals([50.0], [50.0], coverage)


def test_what_cannot_calibrate_is_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1"):
        calibrate_intervals([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="in 3 groups"):
        calibrate_intervals([1.0], [1.0], groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="not numbers"):
        calibrate_intervals([np.nan], [1.0])
    good = {"coverage": 0.9, "protocol": "all", "offsets": {"hfref": [0, 1], "hfmref": [0, 1], "hfpef": [0, 1]}}
    check_calibration(good)
    for bad in (
        {"offsets": {"hfref": [0, 1]}},
        {"offsets": {**good["offsets"], "hfref": 5}},
        {"offsets": {**good["offsets"], "hfref": [0, 1, 2]}},
        {"offsets": {**good["offsets"], "hfref": [0, float("nan")]}},
        {"protocol": None},
        {"coverage": None},
    ):
        with pytest.raises(ValueError, match="`interval_calibration` must hold"):
            check_calibration({**good, **bad})
