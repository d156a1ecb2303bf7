"""Training of the outliner: it learns, and continues where it was interrupted."""

import json

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainerCallback

from echomen_hf.outline import LeftVentricleOutliner, LeftVentricleOutlinerConfig
from echomen_hf.outline.samples import Sample, write_samples
from echomen_hf.training import outline_training
from echomen_hf.training.outline_training import TRAINING_LOG_NAME, _metrics, train_outliner


class Disks:
    """A dark disk in noise, or none: a ventricle that a tiny network learns in seconds."""

    num_recordings = 96

    def __init__(self, seed):
        self.seed = seed
        self.settings = {"seed": seed}

    def recording(self, index):
        rng = np.random.default_rng([self.seed, index])
        row, column = np.ogrid[:32, :32]
        x, y = rng.uniform(12, 20, 2)
        mask = (row - y) ** 2 + (column - x) ** 2 < rng.uniform(5, 9) ** 2
        if index % 8 == 0:
            mask &= False
        frames = rng.integers(120, 250, (7, 32, 32)) * np.where(mask, 0.1, 1.0)
        return [Sample(frames.astype(np.uint8), mask)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folders = {seed: tmp_path_factory.mktemp("disks") for seed in (0, 1)}
    return [write_samples(Disks(seed), folder, progress=False) for seed, folder in folders.items()]


def train(files, folder, **options):
    torch.manual_seed(0)
    model = LeftVentricleOutliner(LeftVentricleOutlinerConfig(image_size=32, hidden_sizes=(4, 8)))
    settings = {"epochs": 8, "batch_size": 8, "learning_rate": 0.02, "save_steps": 24, "disable_tqdm": True}
    return train_outliner(*files, folder, model=model, use_cpu=True, **{**settings, **options})


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(files, folder, description={"validation": "disks"}), folder


def test_it_learns_to_mark_what_it_is_shown(trained):
    model, folder = trained
    log = json.loads((folder / TRAINING_LOG_NAME).read_text())
    dice = [entry["eval_dice"] for entry in log["log"] if "eval_dice" in entry]
    assert len(dice) == 8
    assert dice[-1] > 0.8
    assert log["settings"]["steps"] == 8 * 96 / 8
    assert log["data"] == {"validation": "disks"}
    loaded = LeftVentricleOutliner.from_pretrained(folder)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_interrupted_training_ends_with_the_same_weights(files, trained, tmp_path, monkeypatch):
    class Interruption(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = True

    def interrupted(*args, callbacks, **kwargs):
        return Trainer(*args, callbacks=[*callbacks, Interruption()], **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(outline_training, "Trainer", interrupted)
        train(files, tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-24"]
    resumed = train(files, tmp_path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in trained[0].state_dict().items())


def test_metrics_count_frames_with_and_without_a_ventricle():
    truth, found = np.zeros((2, 4, 4, 4), dtype=bool)
    truth[:2, :2] = True  # 8 pixels
    found[0, :1] = True  # 4 of them
    found[3, 0, 0] = True
    metrics = _metrics(EvalPrediction(predictions=found, label_ids=truth.astype(np.float32)))
    assert metrics == pytest.approx({"dice": 8 / 12 / 2, "share_found": 0.5, "share_empty_in_other_views": 0.5})
