import inspect
import os
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from typing import get_args

import pytest

from echomen_hf.cli import adapt, app, echomen, export, invoke, options, predict


COMMANDS = [command.name for command in echomen.registered_commands]


def test_help_lists_all_commands_in_full(capsys):
    assert invoke([]) == invoke(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    assert "..." not in printed.split("\nCommands:\n")[-1]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"train", "compare"}))
def test_flags_have_underscores_and_help(command, capsys):
    assert invoke([command, "--help"]) == 0
    printed = capsys.readouterr().out
    flags = [word for word in printed.split() if word.startswith("--")]
    assert not [flag for flag in flags if "-" in flag[2:].replace("no-share_windows", "")]
    options = next(c for c in echomen.registered_commands if c.name == command).callback
    for parameter in inspect.signature(options, eval_str=True).parameters.values():
        assert parameter.annotation.__metadata__[0].help, parameter.name


@pytest.mark.parametrize(
    ("command", "flags"), [("train", ["--data_dir", "--learning_rate"]), ("compare", ["--methods", "--recipe"])]
)
def test_help_that_is_passed_on(command, flags, capsys):
    with pytest.raises(SystemExit) as end:
        invoke([command, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: echomen {command}" in printed
    assert all(flag in printed for flag in flags)


@pytest.mark.parametrize("arguments", [[], ["predict"], ["evaluate"], ["app"]])
def test_help_imports_no_large_library(arguments):
    program = (
        "import sys; from echomen_hf.cli import invoke; invoke([*sys.argv[1:], '--help']);"
        "found = {'torch', 'transformers', 'numpy'} & sys.modules.keys(); sys.exit(str(found) if found else 0)"
    )
    child = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr


@pytest.mark.slow
def test_help_takes_a_third_of_the_import_of_torch():
    def seconds(*arguments):
        """Processor time, which other processes on the machine change little."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    help_command, torch = ("-m", "echomen_hf.cli", "predict", "--help"), ("-c", "import torch")
    assert 3 * min(seconds(*help_command) for _ in range(3)) < min(seconds(*torch) for _ in range(3))


def test_choices_and_defaults_are_those_of_the_library():
    from echomen_hf.app import UploadLimits
    from echomen_hf.app.saliency import DEFAULT_STEPS
    from echomen_hf.inference import ENGINE_NAMES, PRECISIONS
    from echomen_hf.inference.export.exporting import CALIBRATION_CLIPS, EXPORT_PRECISIONS
    from echomen_hf.inference.export.measured_error import DEFAULT_MAX_CHANGE, DEFAULT_MAX_MAE_RISE
    from echomen_hf.inference.groups import Combine
    from echomen_hf.simulation import PROFILES
    from echomen_hf.training.adaptation import ADAPTATIONS

    assert get_args(predict.Engine) == ENGINE_NAMES
    assert get_args(adapt.Method) == ADAPTATIONS
    assert get_args(predict.Combine) == get_args(Combine)
    assert get_args(predict.Precision) == PRECISIONS
    assert [name for name in PRECISIONS if name != "tf32"] == list(DEFAULT_MAX_CHANGE)  # exports are for CPUs
    assert get_args(export.Format) == tuple(EXPORT_PRECISIONS)
    assert get_args(options.Profile) == tuple(PROFILES)
    defaults = inspect.signature(export.main).parameters
    assert defaults["max_mae_rise"].default == DEFAULT_MAX_MAE_RISE
    assert defaults["calibration_clips"].default == CALIBRATION_CLIPS
    assert "0.01 for fp32, 1 for bf16 and 2 for int8" in inspect.getsource(export.main)
    assert DEFAULT_MAX_CHANGE == {"fp32": 0.01, "bf16": 1, "int8": 2}
    defaults = inspect.signature(app.main).parameters
    assert defaults["saliency_steps"].default == DEFAULT_STEPS
    for field in fields(UploadLimits):
        assert defaults[field.name].default == field.default


def test_version(capsys):
    assert invoke(["version"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("python 3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pedict"], "error: No such command 'pedict'. Did you mean 'predict'?"),
        (["predict", "clip.avi", "--modle", "x"], "error: No such option: --modle (Possible options: --model"),
        (["predict"], "error: Missing argument 'FILE_OR_FOLDER'."),
        (["predict", "clip.avi", "--batch_size", "many"], "error: Invalid value for '--batch_size': "),
        (["export", "model", "--output", "x", "--format", "onyx"], "'onyx' is not one of 'openvino', 'onnx'"),
        (["predict", "nowhere.avi"], "error: nowhere.avi does not exist"),
    ],
)
def test_mistake_is_one_message_with_status_2(arguments, message):
    child = subprocess.run(
        [sys.executable, "-m", "echomen_hf.cli", *arguments],
        env={name: value for name, value in os.environ.items() if name != "ECHOMEN_HF_TRACEBACK"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 2
    assert message in child.stderr
    assert "Traceback" not in child.stderr
    assert len(child.stderr.splitlines()) <= 2


def test_options_of_layouts_are_those_of_a_training():
    from echomen_hf.cli.options import LAYOUT_OPTIONS
    from echomen_hf.data.layouts.registry import LAYOUTS
    from echomen_hf.training import DataArguments
    from echomen_hf.training.data_arguments import LAYOUT_OPTIONS as ARGUMENTS

    assert {*LAYOUT_OPTIONS, "require_tracings"} == {*ARGUMENTS}
    of_layouts = {name for layout in LAYOUTS.values() for name in layout.options}
    assert of_layouts | {"layout", "split_by", "split_file"} == {*ARGUMENTS}
    helps = {field.name: field.metadata["help"] for field in fields(DataArguments)}
    for name, option in LAYOUT_OPTIONS.items():
        assert option.__metadata__[0].help == helps[name]
        assert option.__metadata__[0].default == f"--{name}"
    assert all(name in helps["layout"] for name in LAYOUTS)


def test_every_command_that_takes_data_takes_their_layout(capsys):
    for command in echomen.registered_commands:
        with suppress(SystemExit):
            invoke([command.name, "--help"])
        printed = capsys.readouterr().out
        # The layout of a training's data is in its record, which is what push describes.
        if "--data_dir" in printed and command.name not in ("push", "compare"):
            assert "--layout" in printed and "--columns" in printed, command.name
