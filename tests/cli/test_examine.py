import json

import numpy as np
import pytest

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.cli import invoke
from echomen_hf.cli.examine import training_changes
from echomen_hf.evaluation.simulation_examination import accuracy_section, experts_section, motion_section
from echomen_hf.runs.files import weights_checksum
from echomen_hf.simulation import SimulatedFrames


def test_script_calibrates_measures_and_fills_the_card(tiny_model, tiny_processor, tmp_path, capsys):
    folder, card = tmp_path / "model", tmp_path / "card.md"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    names = ("accuracy", "experts", "coverage", "motion")
    card.write_text("\n".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->" for name in names))
    output = tmp_path / "new" / "examination.json"
    command = ["--model", str(folder), "--output", str(output), "--num_videos", "4", "--num_motion_videos", "1"]
    invoke(["examine", *command, "--num_workers", "0", "--calibrate", "--card", str(card)])
    found = json.loads(output.read_text())
    assert found["model_sha256"] == weights_checksum(folder)
    assert found["calibration"] == json.loads((folder / "config.json").read_text())["interval_calibration"]
    for make in (accuracy_section, experts_section, motion_section):
        assert make(found) in card.read_text()
    assert "SIMULATED videos only" in capsys.readouterr().out
    first = output.read_bytes()
    invoke(["examine", *command, "--num_workers", "1"])
    assert output.read_bytes() == first
    assert np.isfinite(found["spearman"]["wide"])


def test_changes_of_pictures_are_those_of_the_training_on_record(tmp_path):
    assert training_changes(tmp_path) == {}
    settings = {"run.simulation.vertical_smoothing": 0.7, "run.simulation.simulated_videos": 12}
    (tmp_path / "run.json").write_text(json.dumps({**settings, "training.seed": 3}))
    assert training_changes(tmp_path) == {"vertical_smoothing": 0.7}
    packaged = SimulatedFrames("wide", **training_changes(SMALL_MODEL_FOLDER))
    assert packaged.vertical_smoothing == 1.0 and packaged.brightness_factor == 1.6


def test_card_is_no_output(tmp_path):
    card = tmp_path / "card.md"
    with pytest.raises(ValueError, match="card.md is an input of this command"):
        invoke(["examine", "--model", str(tmp_path), "--output", str(card), "--card", str(card)])
