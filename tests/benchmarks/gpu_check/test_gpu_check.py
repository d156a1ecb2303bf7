"""The check of GPUs on a processor, with small networks: that it runs, and that what it compares agrees here."""

import json
import math

import pytest
import torch

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.sections import SECTIONS, VARIANTS, Variant, attempt


pytestmark = pytest.mark.slow


@pytest.fixture
def run(echonet_dir):
    """Function that runs a section in this process."""
    return lambda name: SECTIONS[name]("cpu", True, echonet_dir)


def test_variants_have_names():
    assert len({str(variant) for variant in VARIANTS}) == len(VARIANTS) == 8
    assert str(Variant("tf32", torch.bfloat16, channels_last=True, checkpointing=True)) == (
        "bfloat16 channels_last checkpointing"
    )
    assert "ZeroDivisionError" in attempt(lambda: 1 / 0)["error"]


def test_gradients(run):
    found = run("gradients")
    assert found["ieee"]["all"] < 1e-5 and found["ieee channels_last"]["all"] < 1e-5
    assert 1e-4 < found["bfloat16"]["all"] < 0.1


def test_steps(run):
    found = run("steps")
    assert math.isclose(found["ieee"]["loss"], found["ieee checkpointing"]["loss"], rel_tol=1e-5)
    assert found["ieee checkpointing"]["computed_gib"] < found["ieee"]["computed_gib"]
    assert all(result["seconds"] > 0 for result in found.values() if "error" not in result)


def test_waits(run):
    assert run("waits") == {"per_step": [0] * 7, "messages": []}  # there is no device to wait for


def test_inference(run):
    found = run("inference")
    assert found["torch fp32"] == found["shared windows fp32"] == 0
    assert 0 < found["torch bf16"] < 1 and found["pipeline"] < 1e-3 and found["saliency (of the largest)"] == 0
    assert len(found["seconds a clip"]["fp32, 2 clips"]) == 4


def test_reading(run):
    assert run("reading")["4 clips, 1 threads"] > 0


def test_stage_2(run):
    assert run("stage_2") == {"embeddings": 0.0, "experts": 0.0}


def test_resume_is_exact_on_a_processor(run):
    assert run("resume") == {"again": 0.0, "resumed": 0.0}


def test_resume_deterministically(run):
    try:
        found = run("resume_deterministically")
    finally:
        torch.use_deterministic_algorithms(False)
    assert found["again"] == found["resumed"] == 0
    assert math.isfinite(found["echognn"])


def test_methods(run):
    found = run("methods")
    assert math.isfinite(found["echomen"]["fp32"]["stage 1"]["loss"])
    assert math.isfinite(found["echomen"]["bf16"]["stage 2"]["mae"])


def test_whole_check_writes_one_file_and_runs_sections_in_processes_of_their_own(tmp_path):
    path = tmp_path / "check.json"
    assert main(["--device", "cpu", "--tiny", "--output", str(path), "--sections", "versions", "nccl"]) == 0
    report = json.loads(path.read_text())
    assert report["sections"]["versions"]["result"]["packages"]["torch"] == torch.__version__.split("+")[0]
    nccl = report["sections"]["nccl"]["result"]
    assert nccl["backend"] == "gloo" and math.isfinite(nccl["own statistics"])


def test_section_that_fails_is_told_and_the_status_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu_check.__main__.BUDGET", 0.0)
    path = tmp_path / "check.json"
    assert main(["--device", "cpu", "--tiny", "--output", str(path), "--sections", "versions"]) == 1
    assert "not finished within" in json.loads(path.read_text())["sections"]["versions"]["error"]
