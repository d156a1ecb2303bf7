import io

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from echomen_hf.comparison import read_settings, report, run_comparison
from echomen_hf.comparison.results import FinishedCell
from echomen_hf.methods import get_method
from echomen_hf.metrics import ef_regression_metrics
from helpers.tiny_config import make_tiny_config


@pytest.fixture(scope="session")
def tiny_recipe():
    """Settings of a recipe for the tiny model."""
    config = make_tiny_config()
    names = ("depths", "hidden_sizes", "num_channels", "num_frames", "sampling_period", "image_size")
    return {
        "model_config": {n: getattr(config, n) for n in (*names, "aggregator_hidden_size", "projection_size")},
        "crop_padding": 3,
        "num_train_epochs": 2,
        "stage2_num_train_epochs": 2,
        "embedding_draws": 1,
        "per_device_train_batch_size": 12,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "report_to": "none",
        "use_cpu": True,
    }


@pytest.fixture(scope="session")
def write_recipe(tiny_recipe, tmp_path_factory):
    """Function that writes the recipe with some settings changed."""

    def write(**changes):
        path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
        path.write_text(yaml.safe_dump({**tiny_recipe, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def frame_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("frames")


@pytest.fixture(scope="session")
def make_settings(write_recipe, echonet_dir, frame_cache):
    """Function that reads the settings of a tiny comparison."""

    def make(data_dir=None, protocol="center", schedule="equal", bootstrap_samples=50, **changes):
        flags = ["--data_dir", str(data_dir or echonet_dir), "--frame_cache", str(frame_cache)]
        choices = {"protocol": protocol, "schedule": schedule, "bootstrap_samples": bootstrap_samples}
        return read_settings(write_recipe(**changes), flags, **choices)

    return make


@pytest.fixture(scope="session")
def compare():
    """Function that runs a comparison in this process, and writes its progress nowhere; figures only if asked for."""

    def run(settings, methods, seeds, output, figures=False, **options):
        options = {"jobs": 0, "console": Console(file=io.StringIO()), **options}
        with pytest.MonkeyPatch.context() as patch:
            if not figures:
                patch.setattr(report, "save_comparison_figures", lambda *_, **__: [])
            return run_comparison(settings, methods, seeds, output, **options)

    return run


@pytest.fixture(scope="session")
def finished(make_settings, compare, tmp_path_factory):
    """Results folder of two methods with two seeds, and of routing; nothing may change it."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    options = {"sweeps": ["top_k"], "published": True, "figures": True}
    outcome = compare(make_settings(), ["echomen", "echonet"], [0, 1], folder, **options)
    assert not outcome.failed
    return folder


@pytest.fixture
def make_cell():
    """Function that makes a finished cell of given predictions."""

    def make(method, seed, predictions, references):
        metrics = ef_regression_metrics(predictions, references)
        names = [f"video_{number}" for number in range(len(references))]
        table = pd.DataFrame({"FileName": names, "EF": np.asarray(references, float)})
        document = {
            "metrics": metrics,
            "validation": metrics,
            "protocol": "windows",
            "title": get_method(method).title,
            "cell_settings": {"options": {}},
            "git_commit": None,
        }
        table["EF_pred"] = np.asarray(predictions, dtype=float)
        return FinishedCell(method, seed, document, table, {})

    return make
