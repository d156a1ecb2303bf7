import csv
import json
import shutil

import numpy as np
import pytest

from echomen_hf.cli import invoke
from echomen_hf.data import LayoutError
from echomen_hf.evaluation.external_test import age_band
from echomen_hf.metrics import ef_regression_metrics
from helpers.data_sets import known_frames, write_camus, write_mimic, write_nifti, write_table


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A table of 36 clips of 12 patients, of which two have no EF."""
    folder = tmp_path_factory.mktemp("data") / "hospital"
    rows = []
    for number in range(36):
        write_nifti(folder / "clips" / f"{number}.nii.gz", known_frames(6, seed=number % 5), time_step=0.02, units=10)
        rows.append(
            {
                "path": f"clips/{number}.nii.gz",
                "EF": "" if number in (3, 20) else 20 + 1.7 * number,
                "patient": f"p{number // 3}",
                "Sex": "FM"[number // 3 % 2],
                "Age": 30 + 2 * (number // 3),
                "view": ["A4C", "A2C", "PLAX"][number % 3],
            }
        )
    write_table(folder / "list.csv", rows)
    return folder


@pytest.fixture(scope="module")
def sets(echonet_dir, hospital, tmp_path_factory):
    base = tmp_path_factory.mktemp("sets")
    return [echonet_dir, write_camus(base / "CAMUS", patients=6), write_mimic(base / "MIMIC"), hospital]


def evaluate(model, output, folders, *flags):
    return invoke(
        ["evaluate", "--model", str(model), "--output", str(output), "--num_workers", "0"]
        + ["--bootstrap_samples", "40", *flags, "--data_dir", *map(str, folders)]
    )


@pytest.fixture(scope="module")
def report(trained, sets, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    assert evaluate(trained, output, sets, "--split_by", "none") == 0
    return output


def rows_of(text, heading):
    """Cells of the first table below a heading."""
    lines = text.split(f"## {heading}\n", 1)[1].strip().splitlines()
    table = [line for line in lines[: lines.index("") if "" in lines else None] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_a_row_per_data_set_and_category(report, trained, sets):
    header, _, *rows = rows_of((report / "report.md").read_text(), "Errors by data set and category")
    assert header[:4] == ["Data set", "Category", "Videos", "Patients"]
    assert header[4] == "MAE (95% interval)"
    assert [row[:2] for row in rows] == [
        [name, category]
        for name in ("echonet", "CAMUS", "MIMIC", "hospital")
        for category in ("All", "HFrEF", "HFmrEF", "HFpEF")
    ]
    whole = {row[0]: row for row in rows if row[1] == "All"}
    assert {name: row[2:4] for name, row in whole.items()} == {
        "echonet": ["30", "–"],
        "CAMUS": ["6", "6"],
        "MIMIC": ["3", "2"],
        "hospital": ["34", "12"],
    }
    for name, row in whole.items():
        metrics = json.loads((report / name / "metrics.json").read_text())["metrics"]
        low, high = metrics["mae_ci_low"], metrics["mae_ci_high"]
        assert row[4] == f"{metrics['mae']:.2f} ({low:.2f} to {high:.2f})"
    empty = next(row for row in rows if row[:2] == ["CAMUS", "HFrEF"])
    assert empty[2:] == ["0", "0", "–", "–", "–", "–", "–"]
    alone = next(row for row in rows if row[:2] == ["MIMIC", "HFrEF"])
    assert alone[2:4] == ["1", "1"] and "(" not in alone[4]


def test_coverage_of_the_prediction_intervals(report):
    header, _, *rows = rows_of((report / "report.md").read_text(), "Errors by data set and category")
    assert header[-2:] == ["Coverage (nominal 90%)", "Mean width"]
    row = next(row for row in rows if row[:2] == ["hospital", "HFpEF"])
    with (report / "hospital" / "predictions.csv").open(newline="") as file:
        references = [float(found["EF"]) for found in csv.DictReader(file)]
    measured = json.loads((report / "hospital" / "metrics.json").read_text())["prediction_intervals"]["measured"]
    assert measured["hfpef"]["n"] == sum(ef >= 50 for ef in references)
    assert row[-2:] == [f"{measured['hfpef']['coverage']:.0%}", f"{measured['hfpef']['width']:.1f}"]


def test_subgroups(report):
    text = (report / "report.md").read_text()
    table = text.split("## Errors by subgroup\n")[1]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    groups = {tuple(row[:2]): row[2:] for row in found}
    assert groups["hospital", "F"][0] == groups["hospital", "M"][0] == "17"
    assert " to " in groups["hospital", "F"][1]
    assert groups["hospital", "18 to 44"][0] == "22" and groups["hospital", "45 to 64"][0] == "12"
    assert {group for name, group in groups if name == "hospital"} >= {"A4C", "A2C", "PLAX"}
    assert groups["CAMUS", "Good"] == ["2", "–", "–"]
    assert "Groups of fewer than 10 videos are counted only." in text


def test_videos_left_out_and_what_the_model_has_seen_are_said(report, echonet_dir):
    with (echonet_dir / "FileList.csv").open(newline="") as file:
        seen = sum(row["Split"] != "TEST" for row in csv.DictReader(file))
    text = (report / "report.md").read_text()
    assert "left out of the data set (2): clips/3 (no EF), clips/20 (no EF)" in text
    assert f"**Seen in training**: {seen} of the 30 videos of echonet" in text
    assert "layout camus; none of them in the training of this model" in text
    document = json.loads((report / "report.json").read_text())["data_sets"]
    assert document["hospital"]["bootstrap_unit"] == "patient" and document["echonet"]["bootstrap_unit"] == "video"
    assert document["echonet"]["seen_in_training"]["videos"] == seen
    assert document["MIMIC"]["subgroups"] == {"View": {}}


def test_intervals_are_by_patient(report):
    with (report / "hospital" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predicted, references = ([float(row[name]) for row in rows] for name in ("EF_pred", "EF"))
    patients = [str(int(row["FileName"].removeprefix("clips/")) // 3) for row in rows]
    found = ef_regression_metrics(predicted, references, bootstrap_samples=40, seed=42, patients=patients)
    stored = json.loads((report / "hospital" / "metrics.json").read_text())["metrics"]
    assert {k: v for k, v in stored.items() if v is not None} == pytest.approx(
        {name: value for name, value in found.items() if not np.isnan(value)}
    )


def test_predictions_as_cardiobench_reads_them(report):
    with (report / "CAMUS" / "cardiobench.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["FileName", "EF_pred"]] * 6
    with (report / "CAMUS" / "predictions.csv").open(newline="") as file:
        assert [(row["FileName"], row["EF_pred"]) for row in csv.DictReader(file)] == [tuple(r.values()) for r in rows]


def test_one_data_set_has_its_files_beside_the_report(trained, echonet_dir, tmp_path):
    evaluate(trained, tmp_path, [echonet_dir], "--split", "test")
    text = (tmp_path / "report.md").read_text()
    assert "Seen in training" not in text and "none of them in the training of this model" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.md",
        "report.json",
        "metrics.json",
        "predictions.csv",
        "cardiobench.csv",
        "figures",
    }
    assert "constant_mean" in json.loads((tmp_path / "metrics.json").read_text())["comparison"]


def test_a_model_without_a_list_is_said_to_be_unknown(trained, sets, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    (model / "training_videos.json").unlink()
    evaluate(model, tmp_path / "out", [sets[1]], "--view", "A2C")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "not known whether the model was trained on them" in text
    assert "constant_mean" in json.loads((tmp_path / "out" / "metrics.json").read_text())["comparison"]


def test_options_go_to_the_layouts_that_have_them(trained, sets, tmp_path):
    evaluate(trained, tmp_path, [sets[1], sets[2]], "--view", "2CH", "--bootstrap_samples", "0")
    with (tmp_path / "CAMUS" / "cardiobench.csv").open() as file:
        assert all(row["FileName"].endswith("_2CH") for row in csv.DictReader(file))
    with pytest.raises(ValueError, match="No layout of these data sets has the option fold"):
        evaluate(trained, tmp_path, [sets[1], sets[2]], "--fold", "1")
    with pytest.raises(ValueError, match="layout camus .* has no option fold; it has view, split_by, split_file"):
        evaluate(trained, tmp_path, [sets[1]], "--fold", "1")


def test_bad_data_are_found_before_anything_is_predicted(trained, sets, tmp_path, monkeypatch):
    from echomen_hf.evaluation import split_evaluation

    monkeypatch.setattr(split_evaluation, "predict_split", lambda *args, **options: pytest.fail("predicted"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="empty has no layout that is known"):
        evaluate(trained, tmp_path / "out", [sets[0], tmp_path / "empty"])
    with pytest.raises(ValueError, match="No split 'train'; the data set has test"):
        evaluate(trained, tmp_path / "out", [sets[0], sets[2]], "--split", "train")


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("0", "0 to 17"),
        ("17.9", "0 to 17"),
        ("18", "18 to 44"),
        ("80", "80 or older"),
        ("", ""),
        ("x", ""),
        ("nan", ""),
    ],
)
def test_age_bands(text, band):
    assert age_band(text) == band
