import subprocess
import sys
from pathlib import Path

import pytest

from echomen_hf import EchoMENConfig
from echomen_hf.cli.command_line import TRACEBACK_VARIABLE, run_script


def fail(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_status_is_that_of_main(returned, status):
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: returned)
    assert caught.value.code == status


@pytest.mark.parametrize("error", [ValueError("EF is 155"), FileNotFoundError("no folder"), FloatingPointError("nan")])
def test_mistake_of_a_user_is_one_message(error, capsys, monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as caught:
        run_script(fail(error))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {error}\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be positive, got 0."),
        ({"num_experts": 2.5}, "Field 'num_experts' expected int, got float (value: 2.5)"),
        ({"adapter_size": -1}, "`adapter_size` must be positive, got -1."),
        (
            {"vector_size": 8, "encoder_config": {"model_type": "vjepa2"}},
            "`vector_size` is that of a model without an encoder; leave out `encoder_config`.",
        ),
    ],
)
def test_field_of_a_configuration_is_a_mistake_too(fields, message, capsys, monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as caught:
        run_script(lambda: EchoMENConfig(**fields))
    assert caught.value.code == 2
    first, *hint = capsys.readouterr().err.splitlines()
    assert first == f"error: {message}"
    assert len(hint) == 1


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError("of a defect"), 1), (ValueError("EF is 155"), 2)])
def test_traceback_of_a_defect_and_on_request(error, status, capsys, monkeypatch):
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    with pytest.raises(SystemExit) as caught:
        run_script(fail(error))
    assert caught.value.code == status
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.endswith(f"{type(error).__name__}: {error}\n")


def test_script_from_the_shell(tmp_path):
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run(
        [sys.executable, "scripts/train.py", "--lerning_rate", "1", "--data_dir", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 2
    assert "error: Unknown argument --lerning_rate. Did you mean --learning_rate?" in child.stderr
    assert "Traceback" not in child.stderr


def test_interruption_has_the_status_of_the_shell(capsys):
    with pytest.raises(SystemExit) as caught:
        run_script(fail(KeyboardInterrupt()))
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_missing_extra_is_one_message(capsys, monkeypatch):
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as caught:
        run_script(fail(ImportError('pip install "echomen-hf[app]"')))
    assert caught.value.code == 2
    assert 'pip install "echomen-hf[app]"' in capsys.readouterr().err
