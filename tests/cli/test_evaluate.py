import csv
import json

import pytest

from echomen_hf.cli import invoke
from echomen_hf.metrics import ef_regression_metrics


@pytest.fixture(scope="module")
def report(trained, echonet_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    status = invoke(
        ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(output)]
        + ["--bootstrap_samples", "50", "--num_workers", "0", "--split", "VAL"]
    )
    assert status == 0
    return output


def test_metrics_file_tells_how_it_was_made(report):
    metrics = json.loads((report / "metrics.json").read_text())
    assert (metrics["split"], metrics["protocol"], metrics["seed"], metrics["ci_level"]) == (
        "validation",
        "windows",
        42,
        0.95,
    )
    assert metrics["synthetic_data"] is True
    assert {"torch", "transformers", "echomen_hf"} <= metrics["versions"].keys()
    assert metrics["metrics"]["mae_ci_low"] <= metrics["metrics"]["mae"] <= metrics["metrics"]["mae_ci_high"]
    rows = {"constant_mean", "stage1", "expert_0", "expert_1", "expert_2", "mean", "echomen", "oracle"}
    assert metrics["comparison"].keys() == rows


def test_predictions_file_gives_the_metrics(report):
    with (report / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stored = json.loads((report / "metrics.json").read_text())["metrics"]
    assert len(rows) == stored["n"]
    found = ef_regression_metrics([float(row["EF_pred"]) for row in rows], [float(row["EF"]) for row in rows])
    assert found["mae"] == pytest.approx(stored["mae"], abs=1e-12)
    for row in rows:
        assert sum(float(row[f"weight_{m}"]) for m in range(3)) == pytest.approx(1, abs=1e-5)
        assert int(row["clips"]) >= 1
    oracle = json.loads((report / "metrics.json").read_text())["comparison"]["oracle"]
    references = [float(row["EF"]) for row in rows]
    errors = [min(abs(float(row[f"EF_expert_{m}"]) - ef) for m in range(3)) for row, ef in zip(rows, references)]
    assert sum(errors) / len(errors) == pytest.approx(oracle["mae"])


def test_figures_of_the_paper(report):
    names = {path.stem for path in (report / "figures").glob("*.png")}
    assert names == {
        "label_distribution",
        "error_by_band",
        "sample_weights",
        "scatter",
        "mae_by_category",
        "bland_altman",
    }


def test_same_command_same_bytes(report, trained, echonet_dir, tmp_path):
    invoke(
        ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(tmp_path)]
        + ["--bootstrap_samples", "50", "--num_workers", "0", "--split", "VAL"]
    )
    for name in ("metrics.json", "predictions.csv", "figures/scatter.png"):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes(), name


def test_model_of_stage_1_is_compared_without_experts(trained, echonet_dir, tmp_path):
    invoke(
        ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained / "stage1"), "--output", str(tmp_path)]
        + ["--bootstrap_samples", "0", "--num_workers", "0", "--protocol", "center"]
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["comparison"].keys() == {"constant_mean", "stage1"}
    assert metrics["comparison"]["stage1"]["mae"] == metrics["metrics"]["mae"]


def test_unknown_split(trained, echonet_dir, tmp_path):
    with pytest.raises(ValueError, match="No split 'holdout'; the data set has train, validation, test"):
        invoke(
            [
                "evaluate",
                "--data_dir",
                str(echonet_dir),
                "--model",
                str(trained),
                "--output",
                str(tmp_path),
                "--split",
                "holdout",
            ]
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--confidence_level", "95"], "confidence_level"), (["--bootstrap_samples", "-1"], "bootstrap_samples")],
)
def test_options_are_checked_before_anything_is_predicted(trained, echonet_dir, tmp_path, monkeypatch, flags, message):
    from echomen_hf.evaluation import split_evaluation

    monkeypatch.setattr(split_evaluation, "predict_split", lambda *args: pytest.fail("predicted"))
    with pytest.raises(ValueError, match=message):
        invoke(
            ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(tmp_path), *flags]
        )


def test_output_that_is_a_file(trained, echonet_dir, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FileExistsError, match="out"):
        invoke(
            ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(tmp_path / "out")]
        )


def test_folder_without_a_model(echonet_dir, tmp_path):
    with pytest.raises(ValueError, match="holds no model: config.json is missing"):
        invoke(
            ["evaluate", "--data_dir", str(echonet_dir), "--model", str(tmp_path), "--output", str(tmp_path / "out")]
        )


def test_clips_that_share_work_give_the_same_report(trained, echonet_dir, tmp_path):
    found = {}
    for flag in ("--share_windows", "--no-share_windows"):
        invoke(
            ["evaluate", "--data_dir", str(echonet_dir), "--model", str(trained), "--output", str(tmp_path / flag)]
            + ["--bootstrap_samples", "0", "--num_workers", "0", "--split", "VAL", "--protocol", "every4", flag]
        )
        with (tmp_path / flag / "predictions.csv").open(newline="") as file:
            found[flag] = list(csv.DictReader(file))
    assert max(int(row["clips"]) for row in found["--share_windows"]) >= 5
    for shared, single in zip(found["--share_windows"], found["--no-share_windows"], strict=True):
        assert (shared["FileName"], shared["clips"]) == (single["FileName"], single["clips"])
        assert float(shared["EF_pred"]) == pytest.approx(float(single["EF_pred"]), abs=1e-4)
