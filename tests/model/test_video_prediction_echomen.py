"""Arithmetic from the clips of a video to its prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from echomen_hf import EjectionFractionPipeline, Predictor, load_echonet_dynamic, read_video
from echomen_hf.inference import predict_split, predict_video
from echomen_hf.model.clip_quality_echomen import Finding
from echomen_hf.model.video_prediction_echomen import average_clips, average_experts, standard_deviation


WIDE = {"coverage": 0.9, "offsets": {"hfref": [-9, 9], "hfmref": [-9, 9], "hfpef": [-9, 9]}, "protocol": "windows"}


def make_clips(*ejection_fractions: float) -> dict[str, torch.Tensor]:
    values = torch.tensor(ejection_fractions, dtype=torch.float64)
    experts = torch.stack([values - 5, values + 5], dim=1)
    weights = torch.full_like(experts, 0.5)
    parts = {"ejection_fraction": values, "regression": values + 1}
    return {**parts, "expert_predictions": experts, "expert_weights": weights}


@pytest.mark.parametrize(
    ("clips", "expected", "interval"),
    [((130.0, 121.0), 100.0, (91.0, 100.0)), ((-3.0, -7.5), 0.0, (0.0, 9.0)), ((np.inf,), 100.0, (91.0, 100.0))],
)
def test_impossible_values_become_the_nearest_possible_ones(clips, expected, interval):
    found = average_clips("a.avi", make_clips(*clips), WIDE)
    assert (found.ejection_fraction, found.regression, found.interval) == (expected, expected, interval)
    assert found.expert_predictions.tolist() == [expected, expected]
    assert found.clip_ejection_fractions.tolist() == [expected] * len(clips)


def test_possible_values_stay_what_they_are():
    values = [20 + 1 / 3, 33.3, 0.0, 100.0]
    found = average_clips("a.avi", make_clips(*values), WIDE)
    assert found.ejection_fraction == np.mean(values)
    assert found.clip_ejection_fractions.tolist() == values
    assert found.regression == np.mean(np.array(values) + 1)
    low, high = found.interval
    assert low < found.ejection_fraction < high


def test_mean_of_clips_is_taken_before_values_are_moved():
    found = average_clips("a.avi", make_clips(90.0, 106.0))
    assert found.ejection_fraction == 98.0
    assert found.clip_ejection_fractions.tolist() == [90.0, 100.0]


def test_nan_never_becomes_a_number():
    found = average_clips("a.avi", make_clips(50.0, np.nan), WIDE)
    assert np.isnan([found.ejection_fraction, *found.interval]).all()
    assert np.isnan(found.clip_ejection_fractions).tolist() == [False, True]
    assert found.category is None


def test_an_unusable_video_has_an_interval_of_nan_and_no_second_reading_to_contradict():
    outline = SimpleNamespace(ejection_fraction=70.0, ef_error=1.0, is_other_view=False)
    still = Finding("unusable", "Hardly anything moves.")
    found = average_clips("a.avi", make_clips(20.0), WIDE, findings=[still], outline=outline)
    low, high = found.interval
    assert np.isnan([found.ejection_fraction, low, high]).all()
    assert found.reasons == ("Hardly anything moves.",)
    forced = average_clips("a.avi", make_clips(20.0), WIDE, findings=[still], outline=outline, force=True)
    assert forced.interval == (11.0, 29.0)
    assert "Two readings disagree" in forced.reasons[1]


def test_experts_that_were_not_consulted():
    experts = np.array([[np.nan, 40.0, np.nan], [50.0, 44.0, np.nan]])
    np.testing.assert_array_equal(average_experts(experts), [50.0, 42.0, np.nan])


def test_standard_deviation_joins_clips_and_experts():
    clips = make_clips(50.0, 54.0)
    assert standard_deviation(clips, has_experts=False) == 2.0
    assert standard_deviation(clips, has_experts=True) == pytest.approx((4 + 25) ** 0.5)


@pytest.mark.parametrize(("bias", "expected"), [(140.0, 100.0), (-20.0, 0.0)])
def test_every_way_in_keeps_to_the_scale(tiny_model, tiny_processor, echonet_dir, bias, expected):
    tiny_model.config.interval_calibration = WIDE
    for head in (tiny_model.regression_head, *tiny_model.experts):
        head.bias.data.fill_(bias)
    row = load_echonet_dynamic(echonet_dir)["train"][0]
    path, parts = row["video"]["path"], (tiny_model, tiny_processor)
    predictor = Predictor(*parts, device="cpu")
    run = EjectionFractionPipeline(model=tiny_model, video_processor=tiny_processor)(path)
    for found in (
        predictor(path),
        next(result for _, result in predictor.predict_files([path])),
        predict_video(*parts, read_video(path)),
        predict_split(*parts, [row], progress=False)[0],
    ):
        assert found.ejection_fraction == run["ejection_fraction"] == expected
        assert found.interval == run["interval"]
        assert found.interval[0] < found.interval[1] and expected in found.interval
        assert set(found.clip_ejection_fractions) == {clip["ejection_fraction"] for clip in run["clips"]} == {expected}
        assert found.category == run["category"]
