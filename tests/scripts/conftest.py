import importlib.util
from pathlib import Path

import pytest


SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

RECIPE = """\
model_config:
  depths: [1, 1]
  hidden_sizes: [4, 8]
  num_channels: 1
  num_frames: 8
  sampling_period: 4
  image_size: 32
  aggregator_hidden_size: 8
  projection_size: 8
crop_padding: 3
num_train_epochs: 1
stage2_num_train_epochs: 1
per_device_train_batch_size: 8
optim: adamw_torch
learning_rate: 3.0e-3
report_to: tensorboard
use_cpu: true
disable_tqdm: true
"""


@pytest.fixture(scope="session")
def load_script():
    """Import a script as a module, to call its `main` in this process."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def trained(load_script, recipe, echonet_dir, tmp_path_factory):
    """A model that `scripts/train.py` trained through both stages."""
    output = tmp_path_factory.mktemp("trained") / "model"
    load_script("train").main([str(recipe), "--data_dir", str(echonet_dir), "--output_dir", str(output)])
    return output
