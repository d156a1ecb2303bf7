import csv
import shutil
import warnings

import numpy as np
import pytest

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NAME, SMALL_MODEL_NOTICE
from echomen_hf.cli import invoke


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def study(echonet_dir, tmp_path):
    """A folder with two videos and between them a text file that calls itself a video."""
    folder = tmp_path / "study"
    folder.mkdir()
    videos = sorted((echonet_dir / "Videos").glob("*.avi"))[:2]
    shutil.copy(videos[0], folder / "a.avi")
    (folder / "b.avi").write_text("no video")
    shutil.copy(videos[1], folder / "c.avi")
    return folder


def test_one_file(trained, study, tmp_path, capsys):
    output = tmp_path / "o.csv"
    status = invoke(["predict", str(study / "a.avi"), "--model", str(trained), "--output", str(output)])
    assert status == 0
    (row,) = read(output)
    assert 0 < float(row["EF_pred"]) < 100
    assert row["category"] in ("HFrEF", "HFmrEF", "HFpEF")
    assert float(row["expert_spread"]) >= 0
    assert row["model"] == str(trained)
    printed = capsys.readouterr().out
    assert row["EF_pred"] in printed
    assert SMALL_MODEL_NOTICE not in printed


def test_without_a_model_the_small_one_reads_and_says_what_it_is(study, tmp_path, capsys):
    output = tmp_path / "o.csv"
    assert invoke(["predict", str(study / "a.avi"), "--output", str(output)]) == 0
    (row,) = read(output)
    assert row["model"] == SMALL_MODEL_NAME
    assert "SIMULATED hearts only" in row["model"]
    assert 0 <= float(row["interval_low"]) <= float(row["EF_pred"]) <= float(row["interval_high"]) <= 100
    assert SMALL_MODEL_NOTICE in capsys.readouterr().out
    by_path = tmp_path / "by_path.csv"
    invoke(["predict", str(study / "a.avi"), "--model", str(SMALL_MODEL_FOLDER), "--output", str(by_path)])
    assert read(by_path) == [row]


def test_bad_file_is_reported_and_the_rest_written(trained, study, tmp_path, capsys):
    output = tmp_path / "new" / "o.csv"
    status = invoke(["predict", str(study), "--model", str(trained), "--output", str(output)])
    assert status == 1
    rows = read(output)
    assert [row["file"].rsplit("/", 1)[-1] for row in rows] == ["a.avi", "b.avi", "c.avi"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert rows[0]["EF_pred"] and rows[2]["EF_pred"] and not rows[1]["EF_pred"]
    errors = capsys.readouterr().err
    assert "b.avi" in errors
    assert "1 of 3 files could not be read" in errors


def test_dicom(trained, tmp_path):
    examples = pytest.importorskip("pydicom.examples")
    status = invoke(
        ["predict", str(examples.get_path("ybr_color")), "--model", str(trained), "--output", str(tmp_path / "o.csv")]
    )
    assert status == 0
    assert 0 < float(read(tmp_path / "o.csv")[0]["EF_pred"]) < 100


def test_colour_is_reported_beside_the_estimate(trained, study, write_video, tmp_path, capsys):
    frames = np.full((40, 64, 64, 3), 60, np.uint8)
    frames[10:30, 20:44, 24:40] = (180, 30, 20)
    frames += (np.arange(40, dtype=np.uint8) % 2 * 60)[:, None, None, None]
    write_video(study / "b.avi", frames, source_format="rgb24")
    output = tmp_path / "o.csv"
    before = warnings.showwarning
    assert invoke(["predict", str(study), "--model", str(trained), "--output", str(output)]) == 0
    rows = read(output)
    assert [bool(row["warning"]) for row in rows] == [False, True, False]
    assert "b.avi: " in rows[1]["warning"]
    assert "coloured, as in colour Doppler" in rows[1]["warning"]
    assert rows[1]["EF_pred"]
    assert f"warning: {rows[1]['warning']}\n" in capsys.readouterr().err
    assert warnings.showwarning is before


def test_engine_and_its_options(trained, study, tmp_path):
    (study / "b.avi").unlink()
    rows = []
    for name, options in (
        ("plain", []),
        ("other", ["--engine", "torch", "--precision", "bf16", "--batch_size", "3", "--workers", "2"]),
    ):
        output = tmp_path / f"{name}.csv"
        command = [str(study), "--model", str(trained), "--output", str(output), *options]
        assert invoke(["predict", *command]) == 0
        rows.append(read(output))
    for plain, other in zip(*rows):
        assert other["file"] == plain["file"]
        assert float(other["EF_pred"]) == pytest.approx(float(plain["EF_pred"]), abs=1)


def test_precision_that_takes_an_export(trained, study):
    with pytest.raises(ValueError, match="`echomen export`"):
        invoke(["predict", str(study), "--model", str(trained), "--precision", "int8"])


@pytest.mark.parametrize("paths", [["missing.avi"], ["."]])
def test_nothing_to_predict(trained, tmp_path, monkeypatch, paths):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist|holds no video"):
        invoke(["predict", *paths, "--model", str(trained)])


def test_missing_model(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder .*none"):
        invoke(["predict", str(study), "--model", str(tmp_path / "none")])
