import json

import numpy as np
import pytest

from echomen_hf import load_echonet_dynamic
from echomen_hf.evaluation import comparison_table, evaluate_split
from echomen_hf.evaluation.split_evaluation import report_figures


@pytest.fixture(scope="module")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir)


def evaluate(model, processor, videos, **options):
    return evaluate_split(model, processor, videos, bootstrap_samples=0, progress=False, **options)


def test_table_keeps_its_order_through_a_file(tiny_model, tiny_processor, videos):
    comparison = evaluate(tiny_model, tiny_processor, videos).comparison
    stored = json.loads(json.dumps(comparison, sort_keys=True).replace("NaN", "null"))
    assert list(stored) != list(comparison)
    assert comparison_table(stored) == comparison_table(comparison)
    rows = [line.split("|")[1].strip() for line in comparison_table(stored).splitlines()[2:]]
    assert rows == [
        "constant mean",
        "stage-1 head",
        "expert 0",
        "expert 1",
        "expert 2",
        "mean of experts",
        "EchoMEN",
        "oracle",
    ]


def test_model_with_routing_is_compared_without_its_experts(tiny_model, tiny_processor, videos):
    tiny_model.config.expert_top_k = 1
    found = evaluate(tiny_model, tiny_processor, videos, split="TEST", protocol="center")
    assert found.comparison.keys() == {"constant_mean", "stage1", "echomen"}
    assert found.comparison["echomen"]["mae"] == found.metrics["mae"]


def test_constant_guess_is_the_mean_of_the_training_split(tiny_model, tiny_processor, videos):
    found = evaluate(tiny_model, tiny_processor, videos, split="val")
    mean = np.mean(videos["train"]["ejection_fraction"])
    expected = np.abs(np.array(videos["validation"]["ejection_fraction"]) - mean).mean()
    assert found.comparison["constant_mean"]["mae"] == pytest.approx(expected)


def test_weights_shown_are_those_of_the_training(tiny_model, tiny_processor, videos):
    tiny_model.config.expert_bin_width = 10.0
    found = evaluate(tiny_model, tiny_processor, videos, protocol="center")
    assert found.weight_table.weights.shape == (10, 3)


def test_data_set_without_training_split(tiny_model, tiny_processor, videos):
    found = evaluate(tiny_model, tiny_processor, {"test": videos["test"]})
    whole = evaluate(tiny_model, tiny_processor, videos)
    assert found.metrics == pytest.approx(whole.metrics, nan_ok=True)
    assert whole.comparison.keys() - found.comparison.keys() == {"constant_mean"}
    assert set(report_figures(whole)) - set(report_figures(found)) == {"sample_weights"}
