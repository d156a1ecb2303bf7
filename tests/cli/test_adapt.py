import json
import shutil

import pytest

from echomen_hf import EchoMENModel, Predictor
from echomen_hf.cli import invoke
from echomen_hf.data import read_data_set
from echomen_hf.runs.training_list import SeenVideos, count_seen
from helpers.data_sets import write_pediatric


@pytest.fixture(scope="module")
def hospital(echonet_dir, tmp_path_factory):
    """30 videos of 10 patients."""
    folder = shutil.copytree(echonet_dir, tmp_path_factory.mktemp("hospital") / "data")
    header, *lines = (folder / "FileList.csv").read_text().splitlines()
    lines = [f"{line},P{position // 3}" for position, line in enumerate(lines)]
    (folder / "FileList.csv").write_text("\n".join([f"{header},Patient", *lines]) + "\n")
    return folder


def adapt(model, data, output, *flags):
    command = ["adapt", "--model", str(model), "--data_dir", str(data), "--output", str(output), "--device", "cpu"]
    return invoke([*command, "--num_workers", "0", "--split", "train+validation+test", *flags])


def test_adapted_folder_is_complete_and_says_what_helped(trained, hospital, tmp_path, capsys):
    output = tmp_path / "adapted"
    assert adapt(trained, hospital, output, "--group_by", "Patient", "--method", "linear") == 0
    printed = capsys.readouterr().out
    assert "30 videos of 10 patients" in printed and "adapted by: linear" in printed
    document = json.loads((output / "adaptation.json").read_text())
    assert (document["chosen"], document["num_patients"], document["model"]) == ("linear", 10, trained.name)
    for name in ("as_is", "linear", "isotonic", "experts"):
        values = document["results"][name]
        assert f"{values['mae']:.2f} ({values['mae_ci_low']:.2f} to {values['mae_ci_high']:.2f})" in printed
    assert count_seen(output, read_data_set(hospital).rows) == SeenVideos(30, 0)
    config = EchoMENModel.from_pretrained(output).config
    assert config.recalibration["predicted"] == [0, 100]
    clip = sorted((hospital / "Videos").glob("*.avi"))[0]
    before, after = Predictor(trained)(clip), Predictor(output)(clip)
    low, high = config.recalibration["corrected"]
    assert after.ejection_fraction == pytest.approx(low + (high - low) * before.ejection_fraction / 100, abs=1e-2)
    assert after.interval is not None
    settings = json.loads((output / "run.json").read_text())
    assert (settings["run.adaptation"], settings["run.model"]) == ("linear", trained.name)


def test_layout_and_patients_of_the_data_and_the_list_of_videos(trained, tmp_path, capsys):
    rows = [{"FileName": f"P{n // 2}-{n}.avi", "EF": 30 + n, "Split": n % 10} for n in range(40)]
    data, output = write_pediatric(tmp_path / "data", rows=rows), tmp_path / "adapted"
    command = ["adapt", "--model", str(trained), "--data_dir", str(data), "--output", str(output), "--device", "cpu"]
    command += ["--num_workers", "0", "--split", "test", "--split_by", "none"]
    with pytest.raises(ValueError, match="no view 'PSAX'"):
        invoke([*command, "--view", "PSAX"])
    assert invoke(command) == 0
    assert "40 videos of 20 patients" in capsys.readouterr().out
    seen = [{"file_name": "P0-7", "patient": "P0"}, {"file_name": "other", "patient": "other"}]
    assert count_seen(output, seen) == SeenVideos(1, 1)


def test_fewer_than_30_clips_are_refused_with_their_number(trained, hospital, tmp_path):
    with pytest.raises(ValueError, match="There are 20 videos to adapt to"):
        invoke(
            ["adapt", "--model", str(trained), "--data_dir", str(hospital), "--output", str(tmp_path / "adapted")]
            + ["--split", "train[:20]", "--device", "cpu"]
        )
    assert not (tmp_path / "adapted").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group_by", "patent"], "no column 'patent'; there is video, file_name"),
        (["--method", "finetune"], "give --finetune finetune"),
        (["--finetune", "nothing"], "No recipe at nothing"),
    ],
)
def test_mistakes_are_found_before_the_encoder_runs(trained, hospital, tmp_path, flags, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        adapt(trained, hospital, tmp_path / "adapted", *flags)


def test_folder_that_holds_something(trained, hospital, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        adapt(trained, hospital, tmp_path)


@pytest.mark.slow
def test_recipe_of_the_package_fine_tunes(trained, hospital, tmp_path, capsys):
    output = tmp_path / "adapted"
    assert adapt(trained, hospital, output, "--finetune", "finetune", "--method", "finetune", "--folds", "2") == 0
    assert "| finetune" in capsys.readouterr().out
    assert EchoMENModel.from_pretrained(output).config.prediction_head == "experts"
