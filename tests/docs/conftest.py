import shutil
from pathlib import Path

import pytest
import torch
import yaml

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.cli import invoke
from echomen_hf.data import read_data_set
from echomen_hf.model.video_processing_echomen import EchoMENVideosKwargs
from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments, SimulationArguments
from echomen_hf.training.recipes import RECIPES_FOLDER
from helpers.data_sets import write_camus, write_mimic, write_pediatric, write_table
from helpers.documents import ROOT


SMALL_NETWORK = {
    "depths": [1, 1],
    "hidden_sizes": [4, 8],
    "num_frames": 8,
    "sampling_period": 4,
    "image_size": 32,
    "aggregator_hidden_size": 8,
    "projection_size": 8,
}
SMALL = {
    "crop_padding": 3,
    "num_train_epochs": 1,
    "stage2_num_train_epochs": 1,
    "stage2_metric_for_best_model": "mae",  # the few videos on VAL lack a category, and so a balanced MAE
    "dataloader_num_workers": 0,
    "dataloader_persistent_workers": False,
    "use_cpu": True,
    "disable_tqdm": True,
}


def shrink(recipe: Path) -> dict:
    """The settings of a recipe with a network and a training that take a second."""
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    # Recipes that continue from a model say nothing about the network.
    network = {"model_config": {**settings["model_config"], **SMALL_NETWORK}} if "model_config" in settings else {}
    return {**settings, **SMALL, **network}


@pytest.fixture(scope="session")
def small_recipes(tmp_path_factory) -> Path:
    """A folder with the recipes, shrunk; a file in the current folder comes before the recipe of its name."""
    folder = tmp_path_factory.mktemp("recipes")
    for path in RECIPES_FOLDER.glob("*.yaml"):
        (folder / path.stem).write_text(yaml.safe_dump(shrink(path)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def demo_run(small_recipes, echonet_dir, tmp_path_factory) -> Path:
    """What `make demo` leaves in `runs/demo`, from a tiny network and 30 videos."""
    folder = tmp_path_factory.mktemp("demo")
    data = shutil.copytree(echonet_dir, folder / "data")
    # The README shows one video of the real demo by its name.
    named = sorted((data / "Videos").glob("*.avi"))[0]
    shutil.copyfile(named, data / "Videos" / "0X52B605ADF3EA2607.avi")
    model, common = str(folder / "model"), ["--data_dir", str(data)]
    invoke(["train", str(small_recipes / "demo"), *common, "--output_dir", model])
    evaluate = ["--model", model, "--output", str(folder / "test"), "--bootstrap_samples", "20", "--num_workers", "0"]
    invoke(["evaluate", *common, *evaluate])
    return folder


@pytest.fixture(scope="session")
def workspace(small_recipes, demo_run, echonet_dir, tmp_path_factory):
    """Function that makes a folder which holds what the pages take for granted.

    That is: the scripts, shrunk recipes, the results of the demo, and, in the place of what may not be redistributed,
    a SYNTHETIC `EchoNet-Dynamic`, small copies of other layouts, and random weights under the name of torchvision's
    file.
    """

    def make() -> Path:
        folder = tmp_path_factory.mktemp("page")
        shutil.copytree(small_recipes, folder, dirs_exist_ok=True)
        (folder / "scripts").symlink_to(ROOT / "scripts")
        for name in ("src", "benchmarks"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(demo_run, folder / "runs" / "demo")
        (folder / "EchoNet-Dynamic").symlink_to(echonet_dir)
        write_pediatric(folder / "EchoNet-Pediatric")
        write_camus(folder / "CAMUS")
        write_mimic(folder / "MIMIC-LVVOL", [{"patient_id": number} for number in range(4)])
        write_hospital(folder / "hospital" / "list.csv", echonet_dir)
        paper = yaml.safe_load((small_recipes / "paper").read_text())
        encoder = EchoMENModel(EchoMENConfig(**paper["model_config"])).encoder
        torch.save(encoder.state_dict(), folder / "r2plus1d_18-91a641e6.pth")
        videos = sorted((echonet_dir / "Videos").glob("*.avi"))
        shutil.copyfile(videos[0], folder / "clip.avi")
        (folder / "study_folder").mkdir()
        shutil.copyfile(videos[1], folder / "study_folder" / videos[1].name)
        return folder

    return make


def write_hospital(path: Path, echonet_dir: Path) -> None:
    """A table of the synthetic videos, as a hospital might have it."""
    rows = read_data_set(echonet_dir).rows
    names = [{"file": row["video"], "LVEF": row["ejection_fraction"], "split": row["split"]} for row in rows]
    write_table(path, names)


@pytest.fixture(scope="session")
def settings() -> set[str]:
    """Names of all settings of `echomen train`, of `EchoMENConfig` and of the video processor."""
    from dataclasses import fields

    classes = (DataArguments, SimulationArguments, ModelArguments, EchoMENTrainingArguments, EchoMENConfig)
    return {field.name for kind in classes for field in fields(kind)} | {*EchoMENVideosKwargs.__annotations__}
