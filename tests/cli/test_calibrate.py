import json
import shutil

import pytest

from echomen_hf import EchoMENModel
from echomen_hf.cli import invoke


@pytest.fixture
def model_folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


def test_intervals_are_stored_in_the_configuration_and_nothing_else_changes(model_folder, echonet_dir, capsys):
    before = {path.name: path.read_bytes() for path in model_folder.iterdir() if path.is_file()}
    arguments = ["--data_dir", str(echonet_dir), "--model", str(model_folder), "--num_workers", "0"]
    assert invoke(["calibrate", *arguments, "--coverage", "0.8"]) == 0
    after = {path.name: path.read_bytes() for path in model_folder.iterdir() if path.is_file()}
    assert {name for name in before if before[name] != after[name]} == {"config.json"}
    old, new = json.loads(before["config.json"]), json.loads(after["config.json"])
    assert {name for name in old | new if old.get(name) != new.get(name)} == {"interval_calibration"}
    stored = new["interval_calibration"]
    assert stored["coverage"] == 0.8 and stored["protocol"] == "windows"
    assert "80% coverage" in capsys.readouterr().out


def test_another_folder_receives_the_whole_model(trained, echonet_dir, tmp_path):
    before = (trained / "config.json").read_bytes()
    arguments = ["--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(tmp_path / "calibrated")]
    invoke(["calibrate", *arguments, "--num_workers", "0", "--protocol", "center"])
    assert (trained / "config.json").read_bytes() == before
    config = EchoMENModel.from_pretrained(tmp_path / "calibrated").config
    assert config.interval_calibration["protocol"] == "center"
    assert (tmp_path / "calibrated" / "video_preprocessor_config.json").is_file()


@pytest.mark.parametrize(("flags", "message"), [(["--coverage", "90"], "between 0 and 1"), ([], "--output is needed")])
def test_what_cannot_end_well_is_refused_before_hours_of_predicting(trained, flags, message):
    model = trained if flags else "me/heart"
    with pytest.raises(ValueError, match=message):
        invoke(["calibrate", "--data_dir", "nowhere", "--model", str(model), *flags])
