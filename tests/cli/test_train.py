import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.cli import invoke
from echomen_hf.data import EchoNetFormatError, LayoutError, VideoValidationError
from echomen_hf.runs.training_list import SeenVideos, count_seen
from helpers.data_sets import write_pediatric


@pytest.fixture
def copy_of_data(echonet_dir, tmp_path):
    return shutil.copytree(echonet_dir, tmp_path / "data")


def rewrite(folder, change):
    """Change the rows of FileList.csv by a function of the row."""
    path = folder / "FileList.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(change(dict(row)) for row in rows)


def test_trained_folder_is_complete(trained, echonet_dir):
    model = EchoMENModel.from_pretrained(trained)
    assert model.config.hidden_sizes == [4, 8]
    processor = EchoMENVideoProcessor.from_pretrained(trained)
    # Statistics were measured on the training split, and are not those of the real data set.
    assert processor.image_mean != [32.6]
    assert 5 < processor.image_mean[0] < 150
    assert list((trained / "stage1").rglob("events.out.tfevents*"))
    history = json.loads((trained / "stage2" / "trainer_state.json").read_text())["log_history"]
    assert any("eval_balanced_mae" in entry or "eval_mae" in entry for entry in history)


def test_second_run_says_that_it_is_done(trained, recipe, echonet_dir):
    before = {path: path.stat().st_mtime_ns for path in (trained / "stage2").glob("*.safetensors")}
    invoke(["train", str(recipe), "--data_dir", str(echonet_dir), "--output_dir", str(trained)])
    assert before == {path: path.stat().st_mtime_ns for path in (trained / "stage2").glob("*.safetensors")}


def test_model_takes_the_place_of_the_new_one_in_the_same_recipe(trained, recipe, echonet_dir, tmp_path):
    invoke(
        ["train", str(recipe), "--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "more")]
        + ["--model", str(trained), "--stage", "2"]
    )
    given, found = EchoMENModel.from_pretrained(trained), EchoMENModel.from_pretrained(tmp_path / "more")
    assert torch.equal(given.encoder.stem[0].weight, found.encoder.stem[0].weight)
    stored = [EchoMENVideoProcessor.from_pretrained(folder).image_mean for folder in (trained, tmp_path / "more")]
    assert stored[0] == stored[1]
    (tmp_path / "more" / "run.json").unlink()  # as of a model from the Hub
    with pytest.raises(ValueError, match="more is an input of this command"):
        invoke(["train", "--model", str(tmp_path / "more"), "--stage", "2", "--output_dir", str(tmp_path / "more")])


@pytest.mark.parametrize("name", ["paper", "release"])
def test_recipe_of_the_package_runs_to_the_end(name, tiny_config, echonet_dir, tmp_path):
    shape = {key: getattr(tiny_config, key) for key in tiny_config.own_fields()}
    flags = ["--model_config", json.dumps(shape), "--max_steps", "2", "--use_cpu", "--report_to", "none"]
    flags += ["--disable_tqdm", "true", "--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false"]
    invoke(["train", name, "--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "run"), *flags])
    for stage in ("stage1", "stage2"):
        assert json.loads((tmp_path / "run" / stage / "trainer_state.json").read_text())["global_step"] == 2
    config = EchoMENModel.from_pretrained(tmp_path / "run").config
    assert (config.prediction_head, config.hidden_sizes) == ("experts", [4, 8])
    assert config.expert_min_count == {"paper": None, "release": 80}[name]


def test_recipe_of_children_takes_their_layout_a_view_and_a_fold(tiny_config, tmp_path):
    rows = [{"Split": number % 4, "EF": 20 + 3 * number} for number in range(16)]
    data = write_pediatric(tmp_path / "data", "PSAX", rows)
    shape = {key: getattr(tiny_config, key) for key in tiny_config.own_fields()}
    flags = ["--model_config", json.dumps(shape), "--max_steps", "2", "--use_cpu", "--report_to", "none"]
    flags += ["--disable_tqdm", "true", "--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false"]
    command = ["train", "pediatric", "--data_dir", str(data), "--output_dir", str(tmp_path / "run"), *flags]
    with pytest.raises(LayoutError, match="no view 'A4C'; it has PSAX"):
        invoke(command)
    invoke([*command, "--view", "PSAX", "--fold", "2", "--stage2_metric_for_best_model", "mae"])
    assert EchoMENModel.from_pretrained(tmp_path / "run").config.prediction_head == "experts"
    folds = {number % 4: f"CR32a755{number}-CR32a998{number}-00004{number}" for number in range(4)}
    test, others = folds.pop(2), folds.values()
    assert count_seen(tmp_path / "run", [{"file_name": name} for name in others]) == SeenVideos(3, 0)
    assert count_seen(tmp_path / "run", [{"file_name": test}]) == SeenVideos(0, 0)


def test_under_accelerate_launch(recipe, echonet_dir, tmp_path):
    root = Path(__file__).resolve().parents[2]
    launch = ["-m", "accelerate.commands.launch", "--config_file", "scripts/accelerate_configs/one_cpu.yaml"]
    child = subprocess.run(
        [sys.executable, *launch, "scripts/train.py", str(recipe), "--stage", "1"]
        + ["--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "model")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert f"{count_train(echonet_dir)} training" in child.stdout
    assert EchoMENModel.from_pretrained(tmp_path / "model").config.prediction_head == "regression"


@pytest.mark.slow
def test_two_processes_train_to_the_end(recipe, echonet_dir, tmp_path):
    root = Path(__file__).resolve().parents[2]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    child = subprocess.run(
        [sys.executable, *launch, "scripts/train.py", str(recipe), "--per_device_train_batch_size", "4"]
        + ["--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "model")],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    state = json.loads((tmp_path / "model" / "stage1" / "trainer_state.json").read_text())
    assert state["global_step"] == -(-count_train(echonet_dir) // 8)
    assert EchoMENModel.from_pretrained(tmp_path / "model").config.prediction_head == "experts"


def count_train(folder):
    with (folder / "FileList.csv").open(newline="") as file:
        return sum(row["Split"] == "TRAIN" for row in csv.DictReader(file))


def test_stage_2_needs_an_encoder(recipe, echonet_dir, tmp_path):
    with pytest.raises(ValueError, match="an encoder that stage 1 has trained"):
        invoke(
            [
                "train",
                str(recipe),
                "--data_dir",
                str(echonet_dir),
                "--output_dir",
                str(tmp_path / "out"),
                "--stage",
                "2",
            ]
        )


class TestBadDataIsFoundBeforeTraining:
    def train(self, recipe, folder, tmp_path, *flags):
        invoke(["train", str(recipe), "--data_dir", str(folder), "--output_dir", str(tmp_path / "out"), *flags])

    def test_unreadable_video(self, recipe, copy_of_data, tmp_path):
        victims = sorted((copy_of_data / "Videos").glob("*.avi"))
        with (copy_of_data / "FileList.csv").open(newline="") as file:
            train = [row["FileName"] for row in csv.DictReader(file) if row["Split"] == "TRAIN"]
        named = [path for path in victims if path.stem in train][:2]
        named[0].write_text("this is no video")
        named[1].write_bytes(b"")
        with pytest.raises(VideoValidationError) as caught:
            self.train(recipe, copy_of_data, tmp_path)
        for path in named:
            assert path.stem in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_truncated_video(self, recipe, copy_of_data, tmp_path):
        with (copy_of_data / "FileList.csv").open(newline="") as file:
            name = next(row["FileName"] for row in csv.DictReader(file) if row["Split"] == "TRAIN")
        victim = copy_of_data / "Videos" / f"{name}.avi"
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size * 6 // 10])
        with pytest.raises(
            VideoValidationError, match=f"{name}.avi: is damaged or cut off: only .* that its header promises"
        ):
            self.train(recipe, copy_of_data, tmp_path)
        assert not (tmp_path / "out").exists()

    def test_missing_video(self, recipe, copy_of_data, tmp_path):
        victim = sorted((copy_of_data / "Videos").glob("*.avi"))[0]
        victim.unlink()
        with pytest.raises(EchoNetFormatError, match=victim.stem):
            self.train(recipe, copy_of_data, tmp_path)

    def test_ejection_fraction_out_of_range(self, recipe, copy_of_data, tmp_path):
        rewrite(copy_of_data, lambda row: row | {"EF": "155"} if row["Split"] == "VAL" else row)
        with pytest.raises(EchoNetFormatError, match=r"FileList.csv, line \d+.*155"):
            self.train(recipe, copy_of_data, tmp_path)

    def test_no_validation_videos(self, recipe, copy_of_data, tmp_path):
        rewrite(copy_of_data, lambda row: row | {"Split": "TRAIN"})
        with pytest.raises(ValueError, match="validation"):
            self.train(recipe, copy_of_data, tmp_path)

    def test_missing_folder(self, recipe, tmp_path):
        with pytest.raises((FileNotFoundError, EchoNetFormatError), match="echomen simulate"):
            self.train(recipe, tmp_path / "nowhere", tmp_path)
