import csv
import re
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NAME, SMALL_MODEL_NOTICE
from echomen_hf.cli import invoke
from echomen_hf.cli.predict import device_of_process


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
    assert row["file"] == "a.avi"
    assert row["model"] == trained.name
    assert (row["protocol"], row["precision"], len(row["weights"])) == ("windows", "fp32", 12)
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
    assert [row["file"] for row in rows] == ["a.avi", "b.avi", "c.avi"]
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
    command = ["predict", str(study), "--model", str(trained), "--output", str(output), "--no_check_view"]
    assert invoke(command) == 0
    rows = read(output)
    assert ["coloured, as in colour Doppler" in row["reasons"] for row in rows] == [False, True, False]
    assert rows[1]["quality"] == "doubtful"
    assert rows[1]["EF_pred"]
    assert rows[1]["warning"] == ""
    assert f"{rows[1]['file']}: doubtful. {rows[1]['reasons']}\n" in capsys.readouterr().out
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


def test_no_output_holds_a_folder_above_or_a_patient_field(trained, study, tmp_path, capfd):
    pydicom = pytest.importorskip("pydicom")
    secrets = ["Mustermann^Erika", "PAT-4711", "19611103", "Sankt Nimmerlein", "Dr^Eisenbarth", "ACC-0815"]
    tags = ["PatientName", "PatientID", "PatientBirthDate", "InstitutionName", "ReferringPhysicianName"]
    folder = tmp_path / "Doe_John" / "1961" / "study"
    folder.parent.mkdir(parents=True)
    study.rename(folder)
    dataset = pydicom.dcmread(pydicom.examples.get_path("ybr_color"))
    for tag, value in zip([*tags, "AccessionNumber"], secrets, strict=True):
        setattr(dataset, tag, value)
    dataset.save_as(folder / "IM1")
    (folder / "IM2").write_bytes((folder / "IM1").read_bytes()[:200_000])
    (folder / "cut.avi").write_bytes((folder / "a.avi").read_bytes()[:2000])
    (folder / "empty.avi").write_bytes(b"")
    (folder / "still.dcm").write_bytes((folder / "IM1").read_bytes()[:3000])
    manifest = folder.parent / "list.csv"
    lines = [f"{folder / 'IM1'}", f"{folder / 'none.avi'}", "study/cut.avi", f"{folder}", (folder / "IM1").as_uri()]
    manifest.write_text("\n".join(["path", *lines]) + "\n")
    model = tmp_path / "Roe_Jane" / "tiny"
    shutil.copytree(trained, model)
    results = folder.parent / "results"
    for name, given in (("csv", [folder, folder / "IM2"]), ("parquet", [folder]), ("csv", ["--manifest", manifest])):
        output = results / f"{len(list(results.glob('*')))}.{name}"
        command = ["predict", *map(str, given), "--model", str(model), "--output", str(output)]
        assert invoke(command) == 1
        assert invoke([*command, "--resume"]) == 1
    printed = capfd.readouterr()
    tables = [pd.read_parquet(path).to_csv() for path in results.glob("*.parquet")]  # compressed in the file
    texts = [printed.out, printed.err, *tables, *(path.read_text() for path in results.glob("*.csv"))]
    assert len(texts) == 5
    assert all(text and "cut.avi" in text for text in texts)
    for text in texts:
        found = [secret for secret in [*secrets, "Doe_John", "1961/", "Roe_Jane", str(tmp_path)] if secret in text]
        assert not found, text


def test_absolute_paths_on_request(trained, study, tmp_path, monkeypatch):
    monkeypatch.chdir(study)
    command = ["predict", "a.avi", "--model", str(trained), "--output", str(tmp_path / "o.csv"), "--absolute_paths"]
    assert invoke(command) == 0
    (row,) = read(tmp_path / "o.csv")
    assert row["file"] == str(study / "a.avi")
    assert row["model"] == trained.name


def test_more_than_40_rows_are_counted_if_a_table_holds_them(trained, study, tmp_path, capsys):
    for number in range(38):
        shutil.copy(study / "a.avi", study / f"clip{number}.avi")
    command = ["predict", str(study), "--model", str(trained), "--protocol", "center"]
    assert invoke([*command, "--output", str(tmp_path / "o.csv")]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(
        r"41 files: \d+ HFrEF, \d+ HFmrEF, \d+ HFpEF, 1 with errors, 0 with warnings, \d+ doubtful, 0 unusable\n"
        r"All rows are in o.csv\n",
        printed.out,
    )
    assert "avi" not in printed.err
    assert "1 of 41 files could not be read" in printed.err
    assert invoke(command) == 1
    printed = capsys.readouterr()
    assert "clip37.avi" in printed.out
    assert "error: b.avi" in printed.err


def test_manifest_and_resume(trained, study, tmp_path):
    (study / "list.csv").write_text("file_name,age\na.avi,61\nc.avi,\n")
    command = ["predict", "--manifest", str(study / "list.csv"), "--model", str(trained)]
    assert invoke([*command, "--output", str(tmp_path / "o.csv")]) == 0
    rows = read(tmp_path / "o.csv")
    assert [(row["file"], row["age"]) for row in rows] == [("a.avi", "61"), ("c.avi", "")]
    with pytest.raises(ValueError, match="protocol was 'windows' and is 'center'"):
        invoke([*command, "--output", str(tmp_path / "o.csv"), "--resume", "--protocol", "center"])
    with pytest.raises(ValueError, match="name it as --output"):
        invoke([*command, "--resume"])
    with pytest.raises(ValueError, match="either files and folders or --manifest"):
        invoke([*command, str(study)])


def test_one_ejection_fraction_per_patient(trained, study, tmp_path, capsys):
    (study / "list.csv").write_text("path,patient\na.avi,=P1\nb.avi,P2\nc.avi,=P1\n")
    command = ["predict", "--manifest", str(study / "list.csv"), "--model", str(trained), "--group_by", "patient"]
    command += ["--output", str(tmp_path / "o.csv")]
    assert invoke(command) == 1
    first, _, last = read(tmp_path / "o.csv")
    one, two = read(tmp_path / "o_by_patient.csv")
    assert (one["patient"], one["videos"], one["failed"]) == ("'=P1", "2", "0")
    assert (two["patient"], two["videos"], two["failed"], two["EF_pred"]) == ("P2", "0", "1", "")
    estimates = sorted(float(row["EF_pred"]) for row in (first, last))
    assert estimates == [float(one["lowest"]), float(one["highest"])]
    assert estimates[0] <= float(one["EF_pred"]) <= estimates[1]
    assert one["weights"] == first["weights"]
    assert "=P1" in capsys.readouterr().out
    written = (tmp_path / "o_by_patient.csv").read_bytes()
    (tmp_path / "o_by_patient.csv").unlink()
    assert invoke([*command, "--resume"]) == 1
    assert (tmp_path / "o_by_patient.csv").read_bytes() == written
    assert invoke([*command, "--resume", "--combine", "median"]) == 1
    middle = read(tmp_path / "o_by_patient.csv")[0]["EF_pred"]
    assert float(middle) == pytest.approx(sum(estimates) / 2, abs=0.006)
    (tmp_path / "o_by_patient.csv").write_text("patient,name\nP1,Doe\n")
    with pytest.raises(ValueError, match="o_by_patient.csv exists and is no earlier table"):
        invoke(command)
    assert (tmp_path / "o_by_patient.csv").read_text() == "patient,name\nP1,Doe\n"


def test_unusable_video_is_no_part_of_its_patient_unless_forced(trained, study, write_video, tmp_path):
    frozen = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (60, 25, 1))  # (T, H, W)
    for name in ("d.avi", "e.avi"):
        write_video(study / name, frozen, codec="ffv1", pix_fmt="gray", fps=50)
    (study / "list.csv").write_text("path,patient\na.avi,P1\nd.avi,P1\ne.avi,P2\n")
    command = ["predict", "--manifest", str(study / "list.csv"), "--model", str(trained), "--group_by", "patient"]
    command += ["--output", str(tmp_path / "o.csv")]
    assert invoke(command) == 0
    alone = read(tmp_path / "o.csv")[0]["EF_pred"]
    one, two = read(tmp_path / "o_by_patient.csv")
    assert (one["EF_pred"], one["lowest"], one["videos"], one["failed"]) == (alone, alone, "1", "1")
    assert (two["EF_pred"], two["category"], two["videos"], two["failed"]) == ("", "", "0", "1")
    assert invoke([*command, "--force"]) == 0
    one, two = read(tmp_path / "o_by_patient.csv")
    assert (one["videos"], two["videos"], two["failed"]) == ("2", "1", "0")
    assert one["lowest"] != one["highest"] and 0 < float(two["EF_pred"]) < 100


def test_column_to_group_by_is_checked_before_predicting(study, tmp_path):
    (study / "list.csv").write_text("path,patient\na.avi,P1\n")
    with pytest.raises(ValueError, match="cannot be grouped by 'patent'; there is patient, folder"):
        invoke(["predict", "--manifest", str(study / "list.csv"), "--model", "none", "--group_by", "patent"])


def test_name_with_markup_is_printed_as_it_is(trained, study, capsys):
    (study / "[").mkdir()
    (study / "a.avi").rename(study / "[" / "].avi")
    assert invoke(["predict", str(study), "--model", str(trained)]) == 1
    assert "[/].avi" in capsys.readouterr().out


@pytest.mark.parametrize("paths", [["missing.avi"], ["."]])
def test_nothing_to_predict(trained, tmp_path, monkeypatch, paths):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist|holds no video"):
        invoke(["predict", *paths, "--model", str(trained)])


def test_missing_model(study, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder .*none"):
        invoke(["predict", str(study), "--model", str(tmp_path / "none")])


def test_processes_share_the_accelerators_of_a_machine(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of_process() is None
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of_process() == "cuda:1"
