"""Calibration of intervals on a split, and their coverage."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echomen_hf import EchoMENModel, load_echonet_dynamic
from echomen_hf.evaluation import evaluate_split, save_report
from echomen_hf.evaluation.interval_calibration import (
    calibrate_model,
    embedding_distribution,
    interval_metrics,
    store_calibration,
)
from echomen_hf.evaluation.split_evaluation import interval_table
from echomen_hf.inference import predict_split


@pytest.fixture(scope="module")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir, split="train")


def test_calibration_is_that_of_the_splits_errors_and_stays_with_the_model(
    tiny_model, tiny_processor, videos, tmp_path
):
    found = calibrate_model(tiny_model, tiny_processor, videos, protocol="Center", coverage=0.5, progress=False)
    predictions = predict_split(tiny_model, tiny_processor, videos, "center", progress=False)
    errors = np.sort(
        [
            row["ejection_fraction"] - prediction.ejection_fraction
            for row, prediction in zip(videos, predictions)
            if row["ejection_fraction"] >= 50
        ]
    )
    rank = int((len(errors) + 1) * 0.25)
    assert found["offsets"]["hfpef"] == [errors[rank - 1], errors[-rank]]
    assert found["protocol"] == "center"
    tiny_model.save_pretrained(tmp_path)
    assert EchoMENModel.from_pretrained(tmp_path).config.interval_calibration == found


def test_some_videos_count_for_one_part_of_a_calibration_only(tiny_model, tiny_processor, videos):
    marks = [number % 2 == 0 for number in range(len(videos))]
    groups = ["a machine" if mark else None for mark in marks]
    half = videos.select(range(0, len(videos), 2))
    found = calibrate_model(
        tiny_model, tiny_processor, videos, progress=False, error_groups=groups, has_usual_embedding=marks
    )
    mean = tiny_model.training_distribution.mean.clone()
    assert found == calibrate_model(tiny_model, tiny_processor, half, progress=False)
    torch.testing.assert_close(mean, tiny_model.training_distribution.mean)


def test_distances_of_usual_videos_are_measured_by_others():
    rng = np.random.default_rng(0)
    spread = np.diag([1.0, 5.0, 0.2])
    mean, precision, usual = embedding_distribution(rng.normal(size=(4000, 3)) @ spread + [1, 2, 3])
    assert mean.numpy() == pytest.approx([1, 2, 3], abs=0.2)
    # A thousandth of the mean variance, 0.009, is added to every variance.
    assert np.diag(np.linalg.inv(precision)) == pytest.approx([1.009, 25.01, 0.049], rel=0.07)
    further = rng.normal(size=(20000, 3)) @ spread
    distances = np.sqrt(np.einsum("ij,jk,ik->i", further, precision.numpy(), further))
    assert (distances > usual).mean() == pytest.approx(0.01, abs=0.004)


def test_a_stored_calibration_is_that_of_the_model(tiny_model, tiny_processor, videos, tmp_path):
    stem = "encoder.stem.0.weight"
    weights = tiny_model.state_dict()
    tiny_model.save_pretrained(tmp_path, state_dict={**weights, stem: weights[stem].half()})
    calibrate_model(tiny_model, tiny_processor, videos, progress=False)
    store_calibration(tmp_path, tiny_model)
    # Weights that the file has in 16 bits, as the packaged model's, stay so.
    assert load_file(tmp_path / "model.safetensors")[stem].dtype == torch.float16
    loaded = EchoMENModel.from_pretrained(tmp_path)
    assert loaded.config.interval_calibration == tiny_model.config.interval_calibration
    assert torch.equal(loaded.training_distribution.precision, tiny_model.training_distribution.precision)
    # Of 99 % of the videos, measured by the other half of them.
    kept = [p.quality for p in predict_split(loaded, tiny_processor, videos, progress=False)]
    assert kept.count("good") >= 0.9 * len(kept)


def test_predictions_and_report_have_the_interval_of_the_calibrated_protocol(
    tiny_model, tiny_processor, videos, echonet_dir, tmp_path
):
    offsets = {"hfref": [-4.0, 2.0], "hfmref": [-3.0, 3.0], "hfpef": [-2.0, 1.0]}
    tiny_model.config.interval_calibration = {"coverage": 0.8, "offsets": offsets, "protocol": "center"}
    prediction = predict_split(tiny_model, tiny_processor, videos.select([0]), "center", progress=False)[0]
    # Without training, the estimate is the initial 55.6 % and a little.
    low, high = prediction.interval
    assert (low, high) == pytest.approx((prediction.ejection_fraction - 2, prediction.ejection_fraction + 1))
    assert predict_split(tiny_model, tiny_processor, videos.select([0]), "2", progress=False)[0].interval is None

    data = load_echonet_dynamic(echonet_dir)
    evaluation = evaluate_split(
        tiny_model, tiny_processor, data, split="VAL", protocol="center", bootstrap_samples=0, progress=False
    )
    save_report(evaluation, tmp_path, model="x", data_dir=echonet_dir, synthetic=True)
    stored = json.loads((tmp_path / "metrics.json").read_text())["prediction_intervals"]
    labels = np.array(data["validation"]["ejection_fraction"])
    inside = [p.interval[0] <= label <= p.interval[1] for p, label in zip(evaluation.predictions, labels)]
    assert stored["nominal_coverage"] == 0.8
    assert stored["measured"]["all"]["coverage"] == np.mean(inside)
    table = interval_table(evaluation.intervals)
    assert "Coverage (nominal 80%)" in table and "HFpEF" in table


def test_coverage_and_width_per_category():
    offsets = {"hfref": [-5, 5], "hfmref": [-5, 5], "hfpef": [-10, 10]}
    calibration = {"coverage": 0.9, "offsets": offsets}
    found = interval_metrics([20.0, 20.0, 70.0, 80.0], [24.0, 26.0, 79.0, 71.0], calibration)
    assert found["hfref"] == {"coverage": 0.5, "width": 10.0, "n": 2}
    assert found["hfpef"] == {"coverage": 1.0, "width": 20.0, "n": 2}
    assert found["all"] == {"coverage": 0.75, "width": 15.0, "n": 4}
    assert "hfmref" not in found
