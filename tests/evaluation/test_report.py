import json
import platform

import numpy as np
import pandas as pd
import pytest

from echomen_hf.evaluation.report import (
    markdown_table,
    predictor_comparison,
    read_metrics_json,
    read_predictions_csv,
    results_table,
    write_metrics_json,
    write_predictions_csv,
)
from echomen_hf.inference.video_prediction import VideoPrediction
from echomen_hf.metrics import ef_regression_metrics


PROVENANCE = {
    "protocol": "windows",
    "split": "TEST",
    "seed": 3,
    "model": "owner/echomen",
    "data_dir": "data/echonet",
}


@pytest.fixture
def metrics():
    return ef_regression_metrics([33.0, 58.0, 61.5], [30.0, 60.0, 60.0])


def video_prediction(name: str, ef: float, experts: list[float], clips: list[float]) -> VideoPrediction:
    weights = np.full(len(experts), 1 / len(experts))
    return VideoPrediction(name, ef, ef + 1 / 3, np.array(experts), weights, np.array(clips))


@pytest.fixture
def predictions():
    return [
        video_prediction("0X100009310A3BD7FC.avi", 55 + 1 / 3, [54.0, 55.0, 57.0], [55.0, 55 + 2 / 3]),
        video_prediction("0123", 39.2, [41.0, 39.0, 37.6], [39.2]),
    ]


def test_metrics_survive_the_file(metrics, tmp_path):
    path = write_metrics_json(tmp_path / "new" / "metrics.json", metrics, **PROVENANCE)
    document = read_metrics_json(path)
    assert document["metrics"] == pytest.approx(metrics, nan_ok=True, abs=0)
    # Folders above may have patients' names.
    expected = PROVENANCE | {"data_dir": "echonet"}
    assert {name: document[name] for name in expected} == expected
    assert document["file_list_sha256"] is None
    assert document["n"] == 3
    assert (document["ci_level"], document["bootstrap_samples"]) == (None, 0)


def test_nan_is_null_and_the_file_is_strict_json(metrics, tmp_path):
    path = write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert document["metrics"]["balanced_mae"] is None
    assert document["metrics"]["mae_hfref"] == 3


def test_versions_are_those_that_ran(metrics, tmp_path):
    from importlib.metadata import version

    versions = read_metrics_json(write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE))["versions"]
    assert set(versions) == {"python", "torch", "transformers", "datasets", "numpy", "echomen_hf"}
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert versions["torch"] == version("torch")


def test_the_same_metrics_give_the_same_bytes_whatever_their_order(metrics, tmp_path):
    first = write_metrics_json(tmp_path / "first.json", metrics, **PROVENANCE)
    second = write_metrics_json(tmp_path / "second.json", dict(reversed(metrics.items())), **PROVENANCE)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().endswith(b"}\n")


def test_intervals_are_written_with_their_level(tmp_path):
    metrics = ef_regression_metrics([33.0, 58.0], [30.0, 60.0], bootstrap_samples=10, confidence_level=0.9)
    with pytest.raises(ValueError, match="pass the `confidence_level`"):
        write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE)
    path = write_metrics_json(
        tmp_path / "metrics.json", metrics, **PROVENANCE, confidence_level=0.9, bootstrap_samples=10
    )
    document = read_metrics_json(path)
    assert (document["ci_level"], document["bootstrap_samples"]) == (0.9, 10)


def test_extra_entries_may_be_nested_arrays_and_paths(metrics, tmp_path):
    extra = {
        "predictors": {"oracle": {"mae": np.float64(1.5), "mae_hfmref": np.nan}},
        "expert_weights": np.array([0.25, np.nan]),
        "train_clips": np.int64(7),
        "figures": (tmp_path / "a.png",),
    }
    document = read_metrics_json(write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE, extra=extra))
    assert document["predictors"] == {"oracle": {"mae": 1.5, "mae_hfmref": None}}
    assert document["expert_weights"] == [0.25, None]
    assert document["train_clips"] == 7
    assert document["figures"] == [(tmp_path / "a.png").as_posix()]


def test_extra_entries_cannot_hide_others(metrics, tmp_path):
    with pytest.raises(ValueError, match="must not replace .*: metrics, seed"):
        write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE, extra={"seed": 1, "metrics": {}})


def test_metrics_without_their_count_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lack `n`"):
        write_metrics_json(tmp_path / "metrics.json", {"mae": 4.0}, **PROVENANCE)


def test_a_failed_write_leaves_the_old_file_and_no_rest(metrics, tmp_path, monkeypatch):
    path = write_metrics_json(tmp_path / "metrics.json", metrics, **PROVENANCE)
    before = path.read_bytes()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("echomen_hf.runs.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_metrics_json(path, {**metrics, "mae": 0.0}, **PROVENANCE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["not json", "[1, 2]", "{}", '{"metrics": 3}', "null"])
def test_another_file_is_not_a_metrics_file(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json is not a metrics file"):
        read_metrics_json(path)


def test_predictions_survive_the_file_to_the_last_bit(predictions, tmp_path):
    path = write_predictions_csv(tmp_path / "predictions.csv", predictions, [50 + 1 / 7, 40.0])
    frame = read_predictions_csv(path)
    experts = [f"EF_expert_{m}" for m in range(3)]
    weights = [f"weight_{m}" for m in range(3)]
    leading = ["FileName", "EF", "EF_category", "EF_pred", "category", "EF_stage1"]
    assert list(frame) == [*leading, *experts, *weights, "clips", "clip_sd"]
    assert frame["FileName"].tolist() == ["0X100009310A3BD7FC.avi", "0123"]
    assert frame["EF"].tolist() == [50 + 1 / 7, 40.0]
    assert frame["EF_pred"].tolist() == [55 + 1 / 3, 39.2]
    assert frame["EF_stage1"].tolist() == [55 + 1 / 3 + 1 / 3, 39.2 + 1 / 3]
    assert frame["EF_category"].tolist() == ["HFpEF", "HFmrEF"]
    assert frame["category"].tolist() == ["HFpEF", "HFrEF"]
    np.testing.assert_array_equal(frame[experts], [[54, 55, 57], [41, 39, 37.6]])
    np.testing.assert_array_equal(frame[weights], np.full((2, 3), 1 / 3))
    assert frame["clips"].tolist() == [2, 1]
    assert frame["clip_sd"].tolist() == [pytest.approx(1 / 3), 0]


def test_metrics_of_the_file_are_those_of_the_evaluation(predictions, tmp_path):
    references = [50 + 1 / 7, 40.0]
    frame = read_predictions_csv(write_predictions_csv(tmp_path / "predictions.csv", predictions, references))
    expected = ef_regression_metrics([prediction.ejection_fraction for prediction in predictions], references)
    assert ef_regression_metrics(frame["EF_pred"], frame["EF"]) == pytest.approx(expected, nan_ok=True, abs=0)


def test_unknown_references_and_unconsulted_experts_are_empty(predictions, tmp_path):
    predictions[0].expert_predictions[1] = np.nan
    path = write_predictions_csv(tmp_path / "predictions.csv", predictions)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith("0X100009310A3BD7FC.avi,,,55.33")
    frame = read_predictions_csv(path)
    assert frame["EF"].isna().all()
    assert frame["EF_category"].tolist() == ["", ""]
    assert frame["EF_expert_1"].isna().tolist() == [True, False]


def test_names_that_look_like_something_else_stay_text(tmp_path):
    names = ["NA", "007", "1e5", "a,b"]
    rows = [video_prediction(name, 50.0, [50.0], [50.0]) for name in names]
    assert read_predictions_csv(write_predictions_csv(tmp_path / "p.csv", rows))["FileName"].tolist() == names


def test_names_that_a_spreadsheet_would_run_are_escaped_in_the_file_only(tmp_path):
    names = ["=1+1", "@x", "-2", "plain"]
    rows = [video_prediction(name, 50.0, [50.0], [50.0]) for name in names]
    path = write_predictions_csv(tmp_path / "p.csv", rows)
    assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == ["'=1+1", "'@x", "-2", "plain"]
    assert read_predictions_csv(path)["FileName"].tolist() == names


def test_predictions_that_do_not_fit_are_refused(predictions, tmp_path):
    path = tmp_path / "predictions.csv"
    with pytest.raises(ValueError, match=r"no predictions to write to .*predictions\.csv"):
        write_predictions_csv(path, [])
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
        write_predictions_csv(path, predictions, [50.0])
    with pytest.raises(ValueError, match=r"same number of experts, got \[1, 3\]"):
        write_predictions_csv(path, [*predictions, video_prediction("c", 50.0, [50.0], [50.0])])
    assert not path.exists()


def test_another_table_is_not_one_of_predictions(tmp_path):
    path = tmp_path / "other.csv"
    pd.DataFrame({"FileName": ["a"], "EF": [50.0]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"other\.csv is not a table of predictions: column EF_pred is missing"):
        read_predictions_csv(path)
    pd.DataFrame({"FileName": ["a"], "EF": [50.0], "EF_pred": ["high"]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"other\.csv: column EF_pred must hold numbers, but .*'high'"):
        read_predictions_csv(path)


def test_comparison_measures_every_part_of_the_model():
    references = np.array([30.0, 45.0, 60.0, 70.0])
    experts = np.array([[34.0, 31.0], [48.0, 43.0], [60.0, 54.0], [69.0, 65.0]])
    comparison = predictor_comparison(references, references + 5, experts, references - 2, train_labels=[50.0, 60.0])
    assert list(comparison) == ["constant_mean", "stage1", "expert_0", "expert_1", "mean", "echomen", "oracle"]
    maes = {name: values["mae"] for name, values in comparison.items()}
    assert maes == {
        "constant_mean": (25 + 10 + 5 + 15) / 4,
        "stage1": 5,
        "expert_0": (4 + 3 + 0 + 1) / 4,
        "expert_1": (1 + 2 + 6 + 5) / 4,
        "mean": (2.5 + 0.5 + 3 + 3) / 4,
        "echomen": 2,
        "oracle": (1 + 2 + 0 + 1) / 4,
    }
    assert comparison["echomen"] == ef_regression_metrics(references - 2, references)


def test_comparison_without_stage_1_and_with_intervals():
    references, experts = [30.0, 45.0, 60.0], [[31.0], [44.0], [59.0]]
    comparison = predictor_comparison(references, None, experts, [30.0, 44.0, 61.0], [55.0], bootstrap_samples=5)
    assert list(comparison) == ["constant_mean", "expert_0", "mean", "echomen", "oracle"]
    assert all("mae_ci_low" in values for values in comparison.values())


@pytest.mark.parametrize("train_labels", [[], [50.0, np.nan]])
def test_comparison_needs_training_labels(train_labels):
    with pytest.raises(ValueError, match="train_labels"):
        predictor_comparison([50.0], None, [[50.0]], [50.0], train_labels)


def test_table_marks_the_best_row_and_counts_videos():
    references = [30.0, 45.0, 60.0]
    results = {
        "EchoNet": ef_regression_metrics([36.0, 47.0, 61.0], references),
        "EchoMEN": ef_regression_metrics([34.0, 47.0, 62.0], references),
        "oracle": ef_regression_metrics(references, references),
        "EchoMEN, as published": {"mae": 3.93, "mae_hfref": 5.94},
    }
    unranked = ("oracle", "EchoMEN, as published")
    lines = results_table(results, metrics=("mae",), unranked=unranked).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["Method", "MAE All (n=3)", "MAE HFrEF (n=1)", "MAE HFmrEF (n=1)", "MAE HFpEF (n=1)"]
    assert cells[2:] == [
        ["EchoNet", "3.00", "6.00", "**2.00**", "**1.00**"],
        ["EchoMEN", "**2.67**", "**4.00**", "**2.00**", "2.00"],
        ["oracle", "0.00", "0.00", "0.00", "0.00"],
        ["EchoMEN, as published", "3.93", "5.94", "–", "–"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_table_shows_every_metric_per_category_and_counts_once(metrics):
    header = results_table({"EchoMEN": metrics}).splitlines()[0]
    titles = [cell.strip() for cell in header.strip("|").split("|")]
    assert titles[1:5] == ["MAE All (n=3)", "MAE HFrEF (n=1)", "MAE HFmrEF (n=0)", "MAE HFpEF (n=2)"]
    assert titles[5:] == ["GM All", "GM HFrEF", "GM HFmrEF", "GM HFpEF"]


def test_balanced_mae_is_one_column_of_its_own():
    results = {"a": {"balanced_mae": 5.0, "mae": 4.0, "n": 9}, "b": {"balanced_mae": 4.5, "mae": 4.1, "n": 9}}
    lines = results_table(results, metrics=("balanced_mae", "mae")).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["Method", "Balanced MAE", "MAE All (n=9)", "MAE HFrEF", "MAE HFmrEF", "MAE HFpEF"]
    assert cells[2:] == [["a", "5.00", "**4.00**", *"–––"], ["b", "**4.50**", "4.10", *"–––"]]


def test_a_single_row_has_no_best(metrics):
    assert "**" not in results_table({"EchoMEN": metrics})


def test_the_smallest_bias_is_the_one_nearest_to_zero():
    table = results_table({"low": {"bias": -3.0}, "high": {"bias": 1.0}}, metrics=("bias",))
    assert "**1.00**" in table
    assert "**-3.00**" not in table


def test_table_adds_intervals_where_there_are_any():
    results = {"a": {"mae": 4.0, "mae_ci_low": 3.5, "mae_ci_high": 4.25}, "b": {"mae": 5.0}}
    lines = results_table(results, metrics=("mae",), intervals=True).splitlines()
    assert "**4.00** (3.50 to 4.25)" in lines[2]
    assert "5.00 |" in lines[3]
    assert "(" not in results_table(results, metrics=("mae",))


def test_table_refuses_rows_of_different_videos():
    with pytest.raises(ValueError, match="same videos, but n is {'a': 3, 'b': 4}"):
        results_table({"a": {"mae": 1.0, "n": 3}, "b": {"mae": 1.0, "n": 4}})
    with pytest.raises(ValueError, match="at least one method"):
        results_table({})


def test_markdown_table_lines_up_and_escapes():
    assert markdown_table(["Name", "x"], [["a|b", "1.00"], ["c", "12.00"]]).splitlines() == [
        "| Name |     x |",
        "| :--- | ----: |",
        "| a\\|b |  1.00 |",
        "| c    | 12.00 |",
    ]


def test_markdown_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match=r"Row \['a'\] has 1 cells, the header has 2"):
        markdown_table(["Name", "x"], [["a"]])
