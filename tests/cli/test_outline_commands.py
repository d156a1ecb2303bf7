"""The commands that train and measure the outliner."""

import json
import shutil

import pytest

from echomen_hf.cli import invoke
from echomen_hf.evaluation import outline_evaluation
from echomen_hf.outline import LeftVentricleOutliner, LeftVentricleOutlinerConfig
from echomen_hf.runs.files import weights_checksum
from echomen_hf.simulation import write_synthetic_echonet
from echomen_hf.training import outline_training


@pytest.fixture(scope="module")
def tiny_outliner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    LeftVentricleOutliner(LeftVentricleOutlinerConfig(hidden_sizes=(4, 8))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("echonet") / "data"
    return write_synthetic_echonet(folder, 4, num_workers=0, progress=False, frames_range=(28, 34))


def test_training_on_simulation_and_on_tracings(tiny_outliner, data_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outline_training, "VALIDATION_RECORDINGS", 2)
    simulated, traced = tmp_path / "simulated", tmp_path / "traced"
    shared = ["--epochs", "1", "--batch_size", "4", "--use_cpu"]
    invoke(
        ["train-outline", "--output_dir", f"{simulated}", "--num_recordings", "3", "--model", f"{tiny_outliner}"]
        + shared
    )
    invoke(
        ["train-outline", "--output_dir", f"{traced}", "--data_dir", f"{data_set}", "--model", f"{simulated}"] + shared
    )
    checksums = {weights_checksum(folder) for folder in (tiny_outliner, simulated, traced)}
    assert len(checksums) == 3
    log = json.loads((simulated / "training_log.json").read_text())
    assert log["data"]["train"]["num_recordings"] == 3
    assert log["settings"]["num_samples"] == 12
    assert str(tmp_path) not in (traced / "training_log.json").read_text()


def test_measuring_on_tracings_writes_numbers_and_the_card(tiny_outliner, data_set, tmp_path, capsys):
    card, output = tmp_path / "card.md", tmp_path / "outline.json"
    card.write_text("<!-- outline:begin -->\n<!-- outline:end -->")
    command = ["evaluate-outline", "--model", f"{tiny_outliner}", "--output", f"{output}", "--card", f"{card}"]
    invoke([*command, "--data_dir", f"{data_set}", "--split", "train"])
    found = json.loads(output.read_text())
    assert found["model_sha256"] == weights_checksum(tiny_outliner)
    assert found["synthetic_data"] is False
    assert 0 <= found["tracings"]["dice"]["end_diastole"]["mean"] <= 1
    assert "| tracings" in card.read_text()
    assert "| tracings" in capsys.readouterr().out


def test_measuring_on_simulation_says_so_and_stores_the_error(tiny_outliner, tmp_path, monkeypatch, capsys):
    output, folder = tmp_path / "outline.json", tmp_path / "outliner"
    shutil.copytree(tiny_outliner, folder)
    monkeypatch.setattr(
        outline_evaluation,
        "calibrate_outliner",
        lambda outliner, **options: setattr(outliner.config, "ef_error_quantile", options["num_videos"] + 6.5),
    )
    invoke(
        ["evaluate-outline", "--model", f"{folder}", "--output", f"{output}", "--calibrate"]
        + ["--num_videos", "1", "--num_others", "1"]
    )
    assert LeftVentricleOutliner.from_pretrained(folder).config.ef_error_quantile == 7.5
    assert json.loads(output.read_text())["model_sha256"] == weights_checksum(tiny_outliner)
    assert json.loads(output.read_text())["synthetic_data"] is True
    assert "SIMULATED videos only" in capsys.readouterr().out


def test_a_card_without_marks_and_a_missing_folder_are_refused_first(tiny_outliner, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("no marks")
    with pytest.raises(ValueError, match="outline:begin"):
        invoke(["evaluate-outline", "--output", f"{tmp_path / 'o.json'}", "--card", f"{card}"])
    with pytest.raises(ValueError, match="card.md is an input of this command"):
        invoke(["evaluate-outline", "--output", f"{card}", "--card", f"{card}"])
    with pytest.raises(ValueError, match="is an input of this command"):
        invoke(["train-outline", "--output_dir", f"{tiny_outliner}", "--model", f"{tiny_outliner}"])
    assert card.read_text() == "no marks"
    with pytest.raises(ValueError, match="give its folder as --model"):
        invoke(["evaluate-outline", "--output", f"{tmp_path / 'o.json'}", "--calibrate"])
    with pytest.raises(ValueError, match="there is no folder"):
        invoke(["evaluate-outline", "--output", f"{tmp_path / 'o.json'}", "--model", f"{tmp_path / 'absent'}"])
