from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.material import HEAD_RANGE, Material, random_model
from benchmarks.speed.suite import BEST, FULL, QUICK, best_of, make_suite, select
from benchmarks.speed.worker import find_workload
from echomen_hf import EchoMENConfig


PROMISED = {
    "inference_exact": 1.7,
    "inference_bf16": 3.4,
    "train_step": 3.0,
    "decode_clip": 15.0,
    "stage2_epoch": 1000.0,
    "windows_exact": 2.0,
}
"""Ratio that each result is to reach."""


@pytest.fixture(scope="module")
def suite():
    material = Material(Path("work"), Path("data"), Path("model"), np.array([50.0, 60.0]))
    return make_suite(material, FULL, EchoMENConfig())


def test_promised_results_are_there_with_their_aims(suite):
    aims = {row.name: row.target for comparison in suite for row in comparison.rows}
    assert len(aims) == sum(len(comparison.rows) for comparison in suite)
    assert PROMISED.items() <= aims.items()


def test_every_workload_exists(suite):
    sides = [side for comparison in suite for side in (comparison.reference, *(row.side for row in comparison.rows))]
    for name in {side.workload for side in sides}:
        find_workload(name)


def test_references_of_networks_run_as_they_come(suite):
    references = [comparison.reference for comparison in suite if "torchvision" in comparison.reference.name]
    assert len(references) == 4
    assert not any(reference.keep_large_blocks for reference in references)


def test_selection_by_name_and_for_the_best(suite):
    chosen, left_out = select(suite, ["train_step", BEST], ())
    names = [row.name for comparison in chosen for row in comparison.rows]
    assert {"train_step", "inference_exact", "inference_bf16_openvino", "inference_int8_openvino"} <= set(names)
    assert not any(name.startswith(("decode", "windows", "stage2")) for name in names)
    assert left_out == []


def test_quick_leaves_out_what_takes_long_unless_it_is_asked_for(suite):
    chosen, left_out = select(suite, None, QUICK.left_out)
    names = {row.name for comparison in chosen for row in comparison.rows}
    assert PROMISED.keys() <= names
    assert sorted(left_out) == sorted(QUICK.left_out)
    asked, _ = select(suite, ["processes"], QUICK.left_out)
    assert [row.name for comparison in asked for row in comparison.rows] == ["processes"]


def test_an_unknown_name_is_refused_with_those_that_exist(suite):
    with pytest.raises(ValueError, match="no result decode_clips; there are inference_exact, .*inference_best"):
        select(suite, ["decode_clips"], ())


def engine(name, ratio, rise):
    return {"name": name, "side": name, "ratio_median": ratio, "error": 0.3, "rise_of_mae": rise, "status": "failed"}


def test_best_is_the_fastest_that_keeps_the_accuracy():
    results = [
        engine("inference_int8_openvino", 7.5, 0.64),
        engine("inference_bf16_openvino", 3.8, 0.02),
        engine("inference_exact", 1.7, 0.0),
        engine("inference_exact_onnx", None, 0.0),
        engine("inference_bf16_batch4", 9.0, 0.0),
        engine("decode_clip", 20.0, 0.0),
    ]
    best = best_of(results)
    assert (best["name"], best["chosen"], best["ratio_median"]) == (BEST, "inference_bf16_openvino", 3.8)
    assert (best["error"], best["target"], best["status"]) == (0.02, 6.0, "measured")
    assert "inference_int8_openvino 7.50 times with a rise of 0.640" in best["reason"]
    assert best_of(results[3:]) is None


def test_an_engine_without_a_comparable_result_is_never_the_best():
    broken = {"name": "inference_bf16", "side": "a", "ratio_median": 99.0, "error": None, "status": "failed"}
    assert best_of([broken, engine("inference_exact", 1.7, 0.0)])["chosen"] == "inference_exact"


def test_random_network_moves_the_ejection_fraction_as_a_trained_one(tiny_config, rng_clips):
    model = random_model(tiny_config, rng_clips, seed=0)
    predicted = model(pixel_values=rng_clips).ejection_fraction - tiny_config.initial_ejection_fraction
    assert predicted.square().mean().sqrt().item() == pytest.approx(HEAD_RANGE, rel=1e-3)
    stem = model.encoder.stem[1]
    assert not model.training
    assert stem.momentum == tiny_config.batch_norm_momentum
    assert stem.running_var.std() > 0
