import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from echomen_hf.metrics import ef_regression_metrics


PREDICTIONS = [33.0, 46.0, 58.0, 71.0]
REFERENCES = [30.0, 45.0, 60.0, 70.0]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    import evaluate

    from echomen_hf.evaluation.metric_module import METRIC_MODULE_PATH

    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(str(folder / "modules"))
        yield evaluate.load(str(METRIC_MODULE_PATH), cache_dir=str(folder / "cache"))


def test_lists_of_numbers_give_the_metrics_of_the_function(metric):
    results = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert results == pytest.approx(ef_regression_metrics(PREDICTIONS, REFERENCES), nan_ok=True)
    assert (results["mae"], results["mae_hfref"], results["balanced_mae"]) == (1.75, 3, (3 + 1 + 1.5) / 3)


def test_whole_numbers_are_accepted(metric):
    assert metric.compute(predictions=[33, 46], references=[30, 45])["mae"] == 2


def test_options_reach_the_function(metric):
    options = {"bootstrap_samples": 30, "confidence_level": 0.9, "seed": 4}
    results = metric.compute(predictions=PREDICTIONS, references=REFERENCES, **options)
    assert results == pytest.approx(ef_regression_metrics(PREDICTIONS, REFERENCES, **options), nan_ok=True)


def test_predictions_collected_in_batches_and_one_by_one_count_alike(metric):
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add(prediction=PREDICTIONS[2], reference=REFERENCES[2])
    metric.add_batch(predictions=np.array(PREDICTIONS[3:]), references=np.array(REFERENCES[3:]))
    assert metric.compute() == pytest.approx(ef_regression_metrics(PREDICTIONS, REFERENCES), nan_ok=True)


def test_numbers_keep_double_precision(metric):
    just_below = np.nextafter(40.0, 0.0)
    results = metric.compute(predictions=[41.0], references=[just_below])
    assert results["n_hfref"] == 1


def test_a_prediction_that_is_not_a_number_is_refused(metric):
    with pytest.raises(ValueError, match="1 of 2 are NaN or infinite, the first at index 1"):
        metric.compute(predictions=[50.0, float("nan")], references=[50.0, 50.0])


def test_it_describes_itself(metric):
    assert metric.name == "ef_regression"
    assert set(metric.features) == {"predictions", "references"}
    assert "heart-failure category" in metric.description
    assert "EchoMEN" in metric.citation
    for option in ("bootstrap_samples", "confidence_level", "seed"):
        assert option in metric.inputs_description


def test_the_metric_card_lists_every_key():
    from echomen_hf.evaluation.metric_module import METRIC_MODULE_PATH

    card = (METRIC_MODULE_PATH / "README.md").read_text(encoding="utf-8")
    metrics = ef_regression_metrics(PREDICTIONS, REFERENCES, bootstrap_samples=1)
    suffixes = ("_ci_low", "_ci_high", "_hfref", "_hfmref", "_hfpef")
    for name in metrics:
        for suffix in suffixes:
            name = name.removesuffix(suffix)
        shown = name if not name.startswith("auroc") else f"_{name.rpartition('_')[2]}`"
        assert shown in card, name
    assert all(f"`{suffix}`" in card for suffix in suffixes)


@pytest.mark.slow
def test_it_loads_in_a_fresh_process_without_network_or_cache(tmp_path):
    import echomen_hf

    program = (
        "import json; from echomen_hf.evaluation.metric_module import load_metric; "
        f"print(json.dumps(load_metric().compute(predictions={PREDICTIONS}, references={REFERENCES})))"
    )
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
        "PYTHONPATH": str(Path(echomen_hf.__file__).parents[1]),
    }
    for inherited in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE"):
        environment.pop(inherited, None)
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1])["mae"] == 1.75
    assert list((tmp_path / "home").rglob("ef_regression.py"))
