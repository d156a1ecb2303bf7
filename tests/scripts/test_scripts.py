import runpy
import sys
from pathlib import Path

import pytest

from echomen_hf import cli


SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMANDS = {
    "adapt": "adapt",
    "app": "app",
    "calibrate": "calibrate",
    "compare_methods": "compare",
    "demo": "demo",
    "evaluate": "evaluate",
    "embed": "embed",
    "evaluate_outline": "evaluate-outline",
    "examine_on_simulation": "examine",
    "export": "export",
    "import_weights": "import-weights",
    "make_synthetic_echonet": "simulate",
    "predict": "predict",
    "push_to_hub": "push",
    "train": "train",
    "train_outline": "train-outline",
}


@pytest.mark.parametrize(("script", "command"), COMMANDS.items())
def test_script_calls_its_command_with_the_arguments_and_status(script, command, monkeypatch):
    called = []
    monkeypatch.setattr(cli, "invoke", lambda arguments: called.append(arguments) or 3)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--seed", "1"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    assert end.value.code == 3
    assert called == [[command, "--seed", "1"]]


def test_every_command_has_a_script():
    names = {command.name for command in cli.echomen.registered_commands}
    assert names == {*COMMANDS.values(), "version"}
    developers = {"minimum_versions", "package_facts", "package_small_model"}
    developers |= {"deepen_small_model", "examine_on_public_clips", "teach_outlines"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} - developers == COMMANDS.keys()
