"""The built package in a clean environment, which borrows only the installed dependencies."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pydicom.examples
import pytest


ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Function that runs a program of the environment in a folder that is not the repository."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(command, check=True, timeout=300)
    site_packages = next((folder / "venv").glob("lib/python*/site-packages"))
    # Folders in a .pth file are searched last, and .pth files in them, such as that of this checkout, are not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run_program(name, *arguments):
        child = subprocess.run(
            [folder / "venv" / "bin" / name, *map(str, arguments)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert child.returncode == 0, child.stderr[-3000:]
        return child.stdout

    return run_program


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"echomen_hf"}
    assert {
        "echomen_hf/recipes/paper.yaml",
        "echomen_hf/checkpoints/small/model.safetensors",
        "echomen_hf/checkpoints/outline/model.safetensors",
    } <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_installed_command_reads_a_cine(run, tmp_path):
    assert "site-packages" in run("python", "-c", "import echomen_hf; print(echomen_hf.__file__)")
    run("echomen", "predict", pydicom.examples.get_path("ybr_color"), "--output", tmp_path / "predictions.csv")
    header, row = (tmp_path / "predictions.csv").read_text().splitlines()
    assert 0 <= float(row.split(",")[header.split(",").index("EF_pred")]) <= 100


def test_installed_training_has_its_recipes(run):
    program = "from echomen_hf.training import recipes as r; print(*(p.stem for p in r.RECIPES_FOLDER.iterdir()))"
    names = sorted(path.stem for path in (ROOT / "src" / "echomen_hf" / "recipes").iterdir())
    assert {"demo", "paper"} < set(names)
    assert sorted(run("python", "-c", program).split()) == names
    assert "usage: echomen train" in run("python", "-m", "echomen_hf.cli", "train", "--help")
