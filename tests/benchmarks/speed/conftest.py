import os
from pathlib import Path

import pytest
import torch

from benchmarks.speed import Row, Side


@pytest.fixture(scope="module", autouse=True)
def importable_workloads():
    """Let processes of sides find `trivial_workloads`."""
    folder = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture
def log(tmp_path):
    """File that trivial workloads write to when they run."""
    return tmp_path / "log.txt"


@pytest.fixture
def side(log):
    """Function that makes a side of a trivial workload."""

    def make(name, workload="Noting", **options):
        return Side(name, f"trivial_workloads:{workload}", {"name": name, "log": str(log), **options})

    return make


@pytest.fixture
def row(side):
    """Function that makes a row of a trivial workload."""

    def make(name, workload="Noting", **options):
        return Row(name, side(name, workload, **options))

    return make


@pytest.fixture
def rng_clips(tiny_config):
    """Clips of noise for the tiny network."""
    shape = (4, tiny_config.num_frames, tiny_config.num_channels, tiny_config.image_size, tiny_config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
