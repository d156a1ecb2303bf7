import ast
import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from echomen_hf.cli import invoke
from echomen_hf.hub import listing, stage_space
from helpers.child_process import PUSH, hide_package


def test_space_is_complete(tmp_path):
    warnings = stage_space(tmp_path, "me/heart")
    app = (tmp_path / "app.py").read_text()
    assert 'build_app("me/heart").launch()' in ast.unparse(ast.parse(app)).replace("'", '"')
    card = SpaceCard.load(tmp_path / "README.md").data
    assert (card.sdk, card.app_file, card.models) == ("gradio", "app.py", ["me/heart"])
    try:
        assert card.sdk_version == importlib.metadata.version("gradio")
        assert warnings == []
    except importlib.metadata.PackageNotFoundError:
        assert card.sdk_version is None
        assert "gradio is not installed" in warnings[0]
    assert len(card.short_description) <= 60
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines[0] == "--extra-index-url https://download.pytorch.org/whl/cpu"
    names = [Requirement(line).name for line in lines[1:]]
    assert {"torch", "transformers", "av", "pydicom"} <= set(names)
    assert not {"gradio", "pytest", "ruff"} & set(names)
    assert not [name for name in listing(tmp_path) if "__pycache__" in name or name.endswith(".pyc")]


def test_page_of_a_model_trained_on_simulated_clips_says_so(run, tmp_path):
    arguments = ["--model", str(run / "model"), "--data_dir", str(run / "data"), "--repo", "me/heart", "--space"]
    invoke(["push", *arguments, "--dry_run", "--output", str(tmp_path / "staged")])
    call = ast.parse((tmp_path / "staged" / "space" / "app.py").read_text()).body[-1].value.func.value
    assert [argument.value for argument in call.args] == ["me/heart"]
    assert {keyword.arg: keyword.value.value for keyword in call.keywords} == {
        "notice": "This model was trained on SYNTHETIC clips only."
    }


@pytest.mark.slow
def test_packaged_source_is_what_the_space_runs(tmp_path):
    stage_space(tmp_path, "me/heart")
    hidden = str(hide_package(tmp_path.parent / "hide"))
    code = "import echomen_hf, echomen_hf.hub; print(echomen_hf.__file__)"
    environment = {**os.environ, "PYTHONPATH": hidden, "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert child.stdout.strip() == str(tmp_path / "echomen_hf" / "__init__.py"), child.stderr


def test_dry_run_of_a_space(run, capsys):
    invoke(["push", "--model", str(run / "model"), "--repo", "me/heart", "--space", "--dry_run"])
    printed = capsys.readouterr().out
    assert "model me/heart" in printed
    assert "space me/heart" in printed
    assert {"app.py", "requirements.txt", "README.md"} <= set(re.findall(r"│ (\S+) ", printed))
    assert printed.rstrip().endswith("Dry run: nothing was published.")


@pytest.mark.slow
def test_space_is_published_beside_the_model(client, hub, run):
    child = client(PUSH, "--model", run / "model", "--repo", "me/heart", "--space")
    space = hub.repository("me/heart", "space")
    assert space.sdk == "gradio"
    assert {"app.py", "requirements.txt", "README.md", "echomen_hf/__init__.py"} <= space.files.keys()
    assert len(space.commits) == len(hub.repository("me/heart").commits) == 2
    assert child.stdout.count("Published ") == 2
