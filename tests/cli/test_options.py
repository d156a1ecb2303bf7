"""Options that several commands share."""

import inspect

import pytest
import torch

from echomen_hf.cli import echomen, invoke
from echomen_hf.cli.options import choose_device, runs_on_cpu


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)


def test_device_is_the_named_one_or_an_accelerator(two_gpus):
    assert choose_device(None) == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    assert [runs_on_cpu(device) for device in (None, "cuda:0", "cpu")] == [False, False, True]


def test_device_without_an_accelerator(no_gpu):
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    assert runs_on_cpu(None)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu", "foo", "mps"])
def test_device_that_is_not_here(no_gpu, device):
    with pytest.raises(ValueError, match=f"--device {device}: PyTorch finds no such device here; name one of cpu."):
        choose_device(device)


@pytest.mark.parametrize("device", ["cuda:2", "gpu", "mps"])
def test_devices_that_are_here_are_named(two_gpus, device):
    with pytest.raises(ValueError, match="name one of cpu, cuda, cuda:0, cuda:1."):
        choose_device(device)


def test_second_accelerator_where_only_the_first_can_be_used(two_gpus):
    with pytest.raises(ValueError, match="--device cuda:1: .* set CUDA_VISIBLE_DEVICES=1"):
        runs_on_cpu("cuda:1")


WITH_DEVICE = [c for c in echomen.registered_commands if "device" in inspect.signature(c.callback).parameters]


@pytest.mark.parametrize("command", WITH_DEVICE, ids=lambda command: command.name)
def test_every_command_refuses_a_device_that_is_not_here(command, trained, echonet_dir, tmp_path, no_gpu):
    own = inspect.signature(command.callback).parameters
    given = ["--device", "gpu", *([str(echonet_dir)] if "paths" in own else [])]
    for name, value in (("model", trained), ("data_dir", echonet_dir), ("output", tmp_path / "o.parquet")):
        if name in own and (command.name, name) != ("evaluate-outline", "model"):
            given += [f"--{name}", str(value)]
    with pytest.raises(ValueError, match="--device gpu: PyTorch finds no such device"):
        invoke([command.name, *given])
