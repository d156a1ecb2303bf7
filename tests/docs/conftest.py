import shutil
from pathlib import Path

import pytest
import torch
import yaml

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments
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
def small_scripts(tmp_path_factory) -> Path:
    """The folder `scripts`, whose recipes are shrunk, and all else is as it is."""
    folder = tmp_path_factory.mktemp("documented") / "scripts"
    (folder / "recipes").mkdir(parents=True)
    for path in (ROOT / "scripts").iterdir():
        if path.name not in ("recipes", "__pycache__"):
            (folder / path.name).symlink_to(path)
    for path in (ROOT / "scripts" / "recipes").glob("*.yaml"):
        (folder / "recipes" / path.name).write_text(yaml.safe_dump(shrink(path)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def demo_run(small_scripts, echonet_dir, run_script_here, tmp_path_factory) -> Path:
    """What `make demo` leaves in `runs/demo`, from a tiny network and 30 videos."""
    folder = tmp_path_factory.mktemp("demo")
    data = shutil.copytree(echonet_dir, folder / "data")
    # The README shows one video of the real demo by its name.
    named = sorted((data / "Videos").glob("*.avi"))[0]
    shutil.copyfile(named, data / "Videos" / "0X52B605ADF3EA2607.avi")
    recipe, model = small_scripts / "recipes" / "demo.yaml", folder / "model"
    run_script_here(small_scripts / "train.py", [recipe, "--data_dir", data, "--output_dir", model])
    evaluate = ["--data_dir", data, "--model", model, "--output", folder / "test", "--bootstrap_samples", "20"]
    run_script_here(small_scripts / "evaluate.py", [*evaluate, "--num_workers", "0"])
    return folder


@pytest.fixture(scope="session")
def workspace(small_scripts, demo_run, echonet_dir, tmp_path_factory):
    """Function that makes a folder which holds what the pages take for granted.

    That is: the scripts, the results of the demo, and, in the place of what may not be redistributed, a SYNTHETIC
    `EchoNet-Dynamic` and random weights under the name of torchvision's file.
    """

    def make() -> Path:
        folder = tmp_path_factory.mktemp("page")
        (folder / "scripts").symlink_to(small_scripts)
        (folder / "src").symlink_to(ROOT / "src")
        shutil.copytree(demo_run, folder / "runs" / "demo")
        (folder / "EchoNet-Dynamic").symlink_to(echonet_dir)
        paper = yaml.safe_load((small_scripts / "recipes" / "paper.yaml").read_text())
        encoder = EchoMENModel(EchoMENConfig(**paper["model_config"])).encoder
        torch.save(encoder.state_dict(), folder / "r2plus1d_18-91a641e6.pth")
        videos = sorted((echonet_dir / "Videos").glob("*.avi"))
        shutil.copyfile(videos[0], folder / "clip.avi")
        (folder / "study_folder").mkdir()
        shutil.copyfile(videos[1], folder / "study_folder" / videos[1].name)
        return folder

    return make


@pytest.fixture(scope="session")
def run_script_here():
    """Function that runs a script in this process, which need not import the libraries anew."""
    import runpy
    import sys

    def run(script: Path, arguments: list) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as end:
                assert not end.code, f"{script.name} ended with status {end.code}"

    return run


@pytest.fixture(scope="session")
def settings() -> set[str]:
    """Names of all settings of `scripts/train.py` and of `EchoMENConfig`."""
    from dataclasses import fields

    classes = (DataArguments, ModelArguments, EchoMENTrainingArguments, EchoMENConfig)
    return {field.name for kind in classes for field in fields(kind)}
