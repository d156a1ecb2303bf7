import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.data.provenance import README_NAME, SYNTHETIC_NOTICE
from echomen_hf.evaluation.report import predictor_comparison, write_metrics_json, write_predictions_csv
from echomen_hf.inference.video_prediction import VideoPrediction
from echomen_hf.metrics import ef_regression_metrics
from echomen_hf.training.fitting import COMPARED_ARGUMENTS
from helpers.child_process import hide_package
from helpers.loopback_hub import TOKEN, LoopbackHub
from helpers.tiny_config import make_tiny_config


# Reference EF, and error of each expert, of the test videos: hand-picked, so that the card can be checked by eye.
REFERENCES = [20.0, 30.0, 35.0, 42.0, 45.0, 48.0, *range(51, 75)]
ERRORS = [8.0, 6.0, 4.0, -3.0, 3.0, 0.5, *([1.0, -1.0, 2.0, -2.0] * 6)]


@pytest.fixture
def hub():
    """A Hub of its own for every test."""
    with LoopbackHub().serve() as server:
        yield server


@pytest.fixture
def client(hub, tmp_path):
    """Function that runs Python code as a user of the loopback Hub, in a process and a home of its own."""

    def run(code, *arguments, package=True):
        script = tmp_path / "client.py"
        script.write_text(code)
        variables = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        variables |= {
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        variables.pop("HF_HUB_OFFLINE", None)
        if not package:
            variables["PYTHONPATH"] = str(hide_package(tmp_path / "hide"))
        child = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-4000:]
        return child

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A run as training and evaluation leave it, with hand-picked numbers: folders `model`, `test` and `data`."""
    root = tmp_path_factory.mktemp("runs") / "heart"
    write_data(root / "data")
    write_model(root / "model", root / "data")
    write_evaluation(root)
    return root


@pytest.fixture
def run(finished_run):
    """A copy of the finished run that a test may change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "heart"
        shutil.copytree(finished_run, copy)
        yield copy


def write_data(folder: Path) -> None:
    """Write FileList.csv with two further columns, and empty files for videos, which nobody decodes here."""
    (folder / "Videos").mkdir(parents=True)
    lines = ["FileName,EF,Split,Sex,Age,Site,PatientID"]
    names = [("TRAIN", f"train{i}", 35.0 + i) for i in range(20)] + [("VAL", f"val{i}", 45.0 + i) for i in range(10)]
    names += [("TEST", f"test{i}", reference) for i, reference in enumerate(REFERENCES)]
    for number, (split, name, ejection_fraction) in enumerate(names):
        sex = "" if number % 20 == 0 else "FM"[number % 2]
        lines.append(f"{name},{ejection_fraction},{split},{sex},{20 + number},north,P{number:03d}")
        (folder / "Videos" / f"{name}.avi").touch()
    (folder / "FileList.csv").write_text("\n".join(lines) + "\n")
    (folder / README_NAME).write_text(f"{SYNTHETIC_NOTICE}\n")


def write_model(folder: Path, data_dir: Path) -> None:
    """Write a model and the records of its two stages."""
    config = make_tiny_config()
    torch.manual_seed(0)
    EchoMENModel(config).save_pretrained(folder)
    processor = EchoMENVideoProcessor.for_model(config)
    processor.image_mean, processor.image_std = [32.5], [50.0]
    processor.save_pretrained(folder)
    settings = {
        "run.file_list_sha256": hashlib.sha256((data_dir / "FileList.csv").read_bytes()).hexdigest(),
        "run.backbone_checkpoint": None,
        "run.model": None,
        "run.crop_padding": 4,
        "run.eval_protocol": "center",
        "run.num_processes": 1,
    }
    (folder / "run.json").write_text(json.dumps(settings))
    for stage in (1, 2):
        arguments = dict.fromkeys(COMPARED_ARGUMENTS)
        arguments |= {"stage": str(stage), "seed": 42, "optim": "sgd", "num_train_epochs": 40 // stage}
        arguments |= {"learning_rate": 1e-4, "fp16": False, "metric_for_best_model": ("mse", "mae")[stage - 1]}
        arguments |= {"contrastive_weight": 0.5, "expert_bin_width": 1.0, "load_best_model_at_end": True}
        state = {
            "epoch": 40 // stage,
            "global_step": 400 // stage,
            "best_metric": 30.25 / stage**2,
            "best_global_step": 300 // stage,
            "log_history": [
                {"step": 300 // stage, "epoch": 30 // stage},
                {"step": 400 // stage, "epoch": 40 // stage, "train_runtime": 100.0 * stage},
            ],
        }
        (folder / f"stage{stage}").mkdir()
        (folder / f"stage{stage}" / "training_args.json").write_text(json.dumps(arguments))
        (folder / f"stage{stage}" / "trainer_state.json").write_text(json.dumps(state))
        (folder / f"stage{stage}" / "training_args.bin").write_bytes(b"a pickle")
        checkpoint = folder / f"stage{stage}" / "checkpoint-300"
        checkpoint.mkdir()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (checkpoint / name).write_bytes(b"a pickle")
    (folder / "training_args.bin").write_bytes(b"a pickle")


def write_evaluation(root: Path) -> None:
    """Write what `echomen evaluate` writes, from hand-picked predictions."""
    references, errors = np.array(REFERENCES), np.array(ERRORS)
    experts = np.stack([references + errors, references, references - errors], axis=1)
    weights = np.tile([0.75, 0.25, 0.0], (len(references), 1))
    predicted = (weights * experts).sum(axis=1)
    predictions = [
        VideoPrediction(f"test{i}", predicted[i], references[i] + 2.0, experts[i], weights[i], predicted[i : i + 1])
        for i in range(len(references))
    ]
    metrics = ef_regression_metrics(predicted, references, bootstrap_samples=200, seed=42)
    comparison = predictor_comparison(references, references + 2.0, experts, predicted, [50.0, 60.0])
    path = write_metrics_json(
        root / "test" / "metrics.json",
        metrics,
        protocol="windows",
        split="test",
        seed=42,
        model="runs/heart/model",
        data_dir=root / "data",
        confidence_level=0.95,
        bootstrap_samples=200,
        extra={"comparison": comparison, "synthetic_data": True},
    )
    document = json.loads(path.read_text())
    document["model"] = str(Path(*root.parts[-1:], "model"))
    document["versions"] = {"python": "3.11.7", "torch": "2.14.1", "transformers": None}
    path.write_text(json.dumps(document))
    write_predictions_csv(root / "test" / "predictions.csv", predictions, references)
    (root / "test" / "figures").mkdir()
    for name in ("mae_by_category", "scatter", "another_figure"):
        (root / "test" / "figures" / f"{name}.png").write_bytes(f"PNG {name}".encode())
