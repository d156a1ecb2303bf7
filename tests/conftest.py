"""Fixtures shared by all tests: one tiny synthetic EchoNet and one tiny model configuration per session."""

import os


# Before anything imports a library that reads it: no test may reach the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"
# Processes that tests start: more threads would get in the way of the other workers, and without bytecode each of them
# would compile the package again.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import fcntl
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENTrainingArguments, EchoMENVideoProcessor
from echomen_hf.cli import invoke
from helpers.tiny_config import make_tiny_config
from helpers.video_files import encode_video, gray_ramp


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


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_worker():
    """Tests run in parallel processes; more threads each would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection():
    """The end of a training collects garbage. What is imported is none, and takes half a second to look through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def private_caches(tmp_path_factory):
    """Caches of datasets and evaluate that no other run has written to."""
    import datasets

    folder = tmp_path_factory.mktemp("caches")
    datasets.config.HF_DATASETS_CACHE = folder / "datasets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder))
        patch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        yield


@pytest.fixture(scope="session")
def echonet_dir(tmp_path_factory, worker_id) -> Path:
    """A synthetic EchoNet of 30 short videos, made once for all workers."""
    from echomen_hf.simulation import write_synthetic_echonet

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder = shared / "echonet"
    with open(shared / "echonet.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_synthetic_echonet(folder, 30, seed=3, frames_range=(28, 70), num_workers=1, progress=False)
    return folder


@pytest.fixture
def tiny_config() -> EchoMENConfig:
    """Two stages of 4 and 8 channels on clips of 8 frames of 32 x 32 pixels."""
    return make_tiny_config()


@pytest.fixture
def tiny_model(tiny_config) -> EchoMENModel:
    """A model of the tiny configuration with weights that a fixed seed drew."""
    torch.manual_seed(0)
    return EchoMENModel(tiny_config).eval()


@pytest.fixture
def tiny_processor(tiny_config) -> EchoMENVideoProcessor:
    """The video processor that belongs to the tiny configuration."""
    return EchoMENVideoProcessor.for_model(tiny_config)


@pytest.fixture
def make_arguments(tmp_path):
    """Arguments of a training that takes seconds; any of them can be overridden."""

    def make(**changes):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "num_train_epochs": 2,
            "stage2_num_train_epochs": 2,
            "per_device_train_batch_size": 6,
            "per_device_eval_batch_size": 8,
            "learning_rate": 1e-4,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 1,
        }
        return EchoMENTrainingArguments(**{**settings, **changes})

    return make


@pytest.fixture
def write_video() -> Callable[..., Path]:
    """Function that writes frames to a video file."""
    return encode_video


@pytest.fixture
def ramp() -> Callable:
    """Function that makes frames whose grey level tells their number."""
    return gray_ramp


@pytest.fixture
def run_without_package(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Function that runs a Python program where the package is not importable, as if it had never been installed."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess:
        hide = tmp_path / "hide"
        hide.mkdir(exist_ok=True)
        (hide / "sitecustomize.py").write_text(
            "import sys\n"
            "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
            "sys.path[:] = [p for p in sys.path if not p.rstrip('/').endswith('src')]\n"
        )
        check = "import importlib.util\nassert importlib.util.find_spec('echomen_hf') is None\n"
        (tmp_path / "program.py").write_text(check + program)
        child = subprocess.run(
            [sys.executable, str(tmp_path / "program.py"), *map(str, arguments)],
            env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(hide)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert child.returncode == 0, child.stderr[-2000:]
        return child

    return run


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def trained(recipe, echonet_dir, tmp_path_factory):
    """A model that `echomen train` trained through both stages."""
    output = tmp_path_factory.mktemp("trained") / "model"
    invoke(["train", str(recipe), "--data_dir", str(echonet_dir), "--output_dir", str(output)])
    return output
