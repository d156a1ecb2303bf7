import json
import shutil

import numpy as np
import pandas as pd
import pytest

from echomen_hf.comparison import CellFolder, cell_run, cells, report, runner
from echomen_hf.comparison.results import RESULT_COLUMNS
from echomen_hf.data.layouts.echonet_dynamic import FILE_LIST_NAME
from echomen_hf.evaluation.report import read_predictions_csv
from echomen_hf.metrics import ef_regression_metrics
from echomen_hf.training import EchoMENTrainer


def results_of(folder):
    return pd.read_csv(folder / "results.csv").set_index(["method", "seed", "category", "metric"])


def test_results_are_those_of_the_predictions(finished):
    results = pd.read_csv(finished / "results.csv")
    assert tuple(results.columns) == RESULT_COLUMNS
    named = results_of(finished)
    assert list(dict.fromkeys(results["method"])) == [
        *("echonet", "echomen", "echomen_expert_top_k_1", "echomen_expert_top_k_2"),
    ]
    for method in ("echonet", "echomen"):
        for seed in (0, 1):
            predictions = read_predictions_csv(CellFolder(finished, method, seed).predictions)
            metrics = ef_regression_metrics(predictions["EF_pred"], predictions["EF"])
            row = named.loc[(method, seed, "all", "mae")]
            assert row["value"] == pytest.approx(metrics["mae"], abs=1e-12)
            assert (row["n"], row["protocol"]) == (len(predictions), "center")
            assert named.loc[(method, seed, "hfpef", "gm"), "value"] == pytest.approx(metrics["gm_hfpef"], abs=1e-12)


def test_category_without_videos_is_an_empty_value(finished):
    named = results_of(finished)
    empty = named[named["n"] == 0]
    assert len(empty) > 0
    assert empty["value"].isna().all()
    assert ",0,center" in (finished / "results.csv").read_text()


def test_seeds_differ_and_methods_differ(finished):
    mae = results_of(finished).xs("mae", level="metric").xs("all", level="category")["value"]
    assert mae.nunique() >= 4


def test_same_command_same_results(finished, make_settings, compare, tmp_path):
    compare(make_settings(), ["echonet"], [1], tmp_path / "again")
    again = results_of(tmp_path / "again")
    pd.testing.assert_frame_equal(again, results_of(finished).loc[again.index])


def test_finished_cells_are_not_computed_again(finished, make_settings, compare, monkeypatch):
    monkeypatch.setattr(cell_run, "fit_method", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(cell_run, "predict_split", lambda *_, **__: pytest.fail("predicted"))
    written = [path for path in finished.iterdir() if path.suffix in (".csv", ".md", ".tex", ".html")]
    before = {path: path.read_bytes() for path in written if "cost" not in path.name}
    outcome = compare(make_settings(), ["echomen", "echonet"], [0, 1], finished, sweeps=["top_k"], published=True)
    assert not outcome.failed
    assert len(before) == 9  # 3 tables of numbers, and 2 of the paper in 3 formats
    assert {path: path.read_bytes() for path in before} == before


def test_tables_and_figures(finished):
    text = (finished / "table1.md").read_text()
    assert "SYNTHETIC data" in text and "As published, on EchoNet-Dynamic" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| Echo")][:2] == [
        "EchoNet",
        "EchoMEN",
    ]
    assert "expert_top_k = 1" in (finished / "sweep_top_k.md").read_text()
    assert "A value is chosen by its errors on VAL" in (finished / "sweep_top_k.md").read_text()
    figures = {path.name for path in (finished / "figures").glob("*.png")}
    assert {"error_by_band.png", "mae_by_category.png", "scatter.png", "trade.png", "expert_mae.png"} <= figures
    # EchoMEN alone is no table of ablations.
    assert not (finished / "table2.md").exists()


def test_cost_is_apart_from_results(finished):
    cost = pd.read_csv(finished / "cost.csv").set_index(["method", "seed"])
    assert cost.loc[("echonet", 0), "stage_1_steps"] == cost.loc[("echomen", 0), "stage_1_steps"] > 0
    assert cost.loc[("echonet", 0), "trained_parameters"] < cost.loc[("echomen", 0), "trained_parameters"]
    assert cost.loc[("echomen_expert_top_k_1", 0), "trained_parameters"] == 0
    assert (cost.loc["echonet", "training_seconds"] > 0).all()
    routing = pd.read_csv(finished / "sweep_top_k_cost.csv").set_index(["top_k", "batch_size"])
    one, three = routing.loc[(1, 1)], routing.loc[(3, 1)]
    # Two experts fewer, each a product of the 8 numbers of the embedding.
    assert three["flops_per_clip"] - one["flops_per_clip"] == 2 * 2 * 8
    assert (routing["microseconds_per_clip"] > 0).all()


def test_metrics_of_a_cell_say_what_it_is(finished):
    document = json.loads(CellFolder(finished, "echomen", 0).metrics.read_text())
    assert (document["method"], document["seed"], document["split"], document["synthetic_data"]) == (
        *("echomen", 0, "test", True),
    )
    assert document["cell_settings"]["training"]["num_train_epochs"] == 2
    assert document["validation"]["n"] > 0
    assert document["metrics"]["mae_ci_low"] <= document["metrics"]["mae"] <= document["metrics"]["mae_ci_high"]


def test_checkpoints_are_removed_and_models_stay(finished):
    run = CellFolder(finished, "echomen", 0).run
    assert not list(run.glob("stage*/checkpoint-*"))
    assert (run / "model.safetensors").is_file() and (run / "stage1" / "model.safetensors").is_file()


def test_shared_stage_1_changes_nothing(finished, make_settings, compare, tmp_path):
    """Variants trained on EchoMEN's stage 1 are those that train it themselves."""
    settings, shared, alone = make_settings(), tmp_path / "shared", tmp_path / "alone"
    shutil.copytree(finished, shared)
    compare(settings, ["echomen_category_experts"], [0], shared, sweeps=["experts"])
    assert not (CellFolder(shared, "echomen_category_experts", 0).run / "stage1").exists()
    assert not (CellFolder(shared, "echomen_num_experts_5", 0).run / "stage1").exists()
    own = {variant.name: variant for variant in runner.make_sweep("experts", settings.training, settings.model_config)}
    own["echomen_category_experts"] = runner.select_methods(["echomen_category_experts"])[0]
    for name in ("echomen_category_experts", "echomen_num_experts_5"):
        cell_run.run_cell(cells.Cell(own[name], 0), settings, alone)
        one, other = (read_predictions_csv(CellFolder(place, name, 0).predictions) for place in (shared, alone))
        pd.testing.assert_frame_equal(one, other)
    text = (shared / "sweep_experts.md").read_text()
    assert [name in text for name in ("num_experts = 1", "num_experts = 3 (EchoMEN)", "num_experts = 5")] == [True] * 3


def test_rivals_stand_beside_the_setting_that_is_best_on_val(finished, make_settings, compare, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(finished, results)
    monkeypatch.setattr(report, "best_on_validation", lambda validation, names: names[0])
    compare(make_settings(), ["echomen"], [0, 1], results, sweeps=["top_k"])
    text = (results / "sweep_best.md").read_text()
    assert text.count("EchoMEN, expert_top_k = 1: the least balanced MAE on VAL of 3 settings of EchoMEN") == 1
    assert "against EchoMEN, expert_top_k = 1, over" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["EchoNet", "EchoMEN", "EchoMEN, expert_top_k = 1"]
    tests = pd.read_csv(results / "significance_sweep_best.csv")
    assert set(tests["method"]) == {"echomen", "echonet", "echomen_expert_top_k_2"}


def test_best_setting_by_hand():
    rows = [("a", 0, 5.0), ("a", 1, 4.0), ("b", 0, 3.0), ("b", 1, 5.0), ("c", 0, 1.0), ("d", 0, 0.5), ("d", 1, 0.5)]
    table = pd.DataFrame(rows, columns=["method", "seed", "value"]).assign(metric="balanced_mae")
    table = pd.concat([table, table.assign(metric="mae", value=-table["value"])])
    assert report.best_on_validation(table, ["a", "b", "c"]) == "b"  # 4.0 beats 4.5, and c has one seed alone
    assert report.best_on_validation(table, ["a", "d"]) == "d"
    assert report.best_on_validation(table, ["e"]) is None
    assert report.best_on_validation(table.assign(value=float("nan")), ["a", "b"]) is None


def interrupt_training(monkeypatch, stage, step):
    """Let the process end in a step of a stage as if it had been killed."""
    original = EchoMENTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.args.stage == stage and self.state.global_step == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(EchoMENTrainer, "training_step", training_step)


def test_killed_run_continues_within_a_cell(finished, make_settings, compare, tmp_path, monkeypatch):
    settings = make_settings()
    with monkeypatch.context() as patch:
        interrupt_training(patch, "1", 3)
        with pytest.raises(KeyboardInterrupt):
            compare(settings, ["echonet"], [0], tmp_path / "out")
    folder = CellFolder(tmp_path / "out", "echonet", 0)
    assert folder.latest_step() == 2  # steps of the first epoch
    steps = []
    original = EchoMENTrainer.training_step
    monkeypatch.setattr(
        EchoMENTrainer,
        "training_step",
        lambda self, *args, **kwargs: steps.append(self.state.global_step) or original(self, *args, **kwargs),
    )
    compare(settings, ["echonet"], [0], tmp_path / "out")
    assert steps == [2, 3]
    again = results_of(tmp_path / "out")
    pd.testing.assert_frame_equal(again, results_of(finished).loc[again.index])
    assert json.loads(folder.cost.read_text())["training_attempts"] == 2


def test_failing_cell_is_recorded_and_the_others_go_on(finished, make_settings, compare, tmp_path, monkeypatch):
    settings, output = make_settings(), tmp_path / "out"
    original = cell_run.predict

    def predict(model, processor, videos, settings):
        if "echomen" in str(model.config.name_or_path):
            raise MemoryError("no room for EchoMEN")
        return original(model, processor, videos, settings)

    with monkeypatch.context() as patch:
        patch.setattr(cell_run, "predict", predict)
        outcome = compare(settings, ["echomen", "echonet"], [0], output, sweeps=["top_k"])
    names = [cell.variant.name for cell in outcome.failed]
    assert names == ["echomen", "echomen_expert_top_k_1", "echomen_expert_top_k_2"]
    folder = CellFolder(output, "echomen", 0)
    assert "no room for EchoMEN" in folder.error.read_text() and "Traceback" in folder.error.read_text()
    assert (
        "changes a setting of a finished echomen" in CellFolder(output, "echomen_expert_top_k_1", 0).error.read_text()
    )
    assert results_of(output).index.get_level_values("method").unique().tolist() == ["echonet"]
    assert "Cells that failed and are not in these tables: echomen (seed 0)" in (output / "table1.md").read_text()

    # Once fixed, the cell resumes where it failed: after its training.
    monkeypatch.setattr(EchoMENTrainer, "training_step", lambda *_, **__: pytest.fail("trained"))
    outcome = compare(settings, ["echomen", "echonet"], [0], output)
    assert not outcome.failed and not folder.error.exists()
    mae = ("echomen", 0, "all", "mae")
    assert results_of(output).loc[mae, "value"] == results_of(finished).loc[mae, "value"]


def test_nothing_is_computed_in_a_folder_of_other_settings(finished, make_settings, compare):
    before = sorted(finished.rglob("*"))
    with pytest.raises(ValueError, match="another data set, other settings"):
        compare(make_settings(learning_rate=0.5), ["sqinv"], [0], finished)
    assert sorted(finished.rglob("*")) == before


def test_finished_cell_of_other_options(finished, make_settings, compare, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    metrics = CellFolder(folder, "echonet", 0).metrics
    document = json.loads(metrics.read_text())
    document["cell_settings"]["options"] = {"beta": 1}
    metrics.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="seed_0 holds a cell with another options"):
        compare(make_settings(), ["echonet"], [0], folder)


def test_cells_of_different_videos_are_not_put_into_one_table(finished, make_settings, compare, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    predictions = CellFolder(folder, "echonet", 0).predictions
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="are about different videos"):
        compare(make_settings(), ["echonet"], [0], folder)


def test_cell_that_another_process_computes(make_settings, tmp_path):
    from filelock import FileLock

    cell = cells.Cell(runner.select_methods(["echonet"])[0], 0)
    folder = CellFolder.of(tmp_path, cell)
    folder.path.mkdir(parents=True)
    with FileLock(folder.lock), pytest.raises(RuntimeError, match="Another process is computing"):
        cell_run.run_cell(cell, make_settings(), tmp_path)


def test_bad_input_is_found_before_anything_is_written(make_settings, compare, tmp_path):
    output = tmp_path / "out"
    for settings, methods, seeds, message in [
        (make_settings(), ["echonets"], [0], "no method 'echonets'"),
        (make_settings(), ["echonet"], [], "at least one method and one seed"),
        (make_settings(), ["echonet"], [-1], "not negative"),
        (make_settings(protocol="half"), ["echonet"], [0], "half"),
        (make_settings(early_stopping_patience=1), ["echonet"], [0], "early_stopping_patience"),
        (make_settings(metric_for_best_model="mad"), ["echonet"], [0], "cannot be chosen by 'mad'"),
        (make_settings(method_options={"focal_r": {"bet": 1}}), ["echonet"], [0], "no option bet"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare(settings, methods, seeds, output)
    assert not output.exists()


def test_a_folder_without_its_cells_is_not_added_to(finished, make_settings, compare, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(folder / "cells")
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match="without the folders of its cells.*Choose another `--output`"):
        compare(make_settings(), ["sqinv"], [0], folder)
    assert sorted(folder.iterdir()) == before


def test_data_set_without_a_test_split(make_settings, compare, echonet_dir, tmp_path):
    data = shutil.copytree(echonet_dir, tmp_path / "data")
    path = data / FILE_LIST_NAME
    path.write_text(path.read_text().replace("TEST", "TRAIN"))
    with pytest.raises(ValueError, match="has no test videos.*Mark some as TEST"):
        compare(make_settings(data_dir=data), ["echonet"], [0], tmp_path / "out")


def test_frames_are_cached_once_for_all(finished, frame_cache):
    assert (frame_cache / "index.jsonl").is_file()
    # A folder of its own is for frames of another size.
    assert not [path for path in frame_cache.iterdir() if path.is_dir()]


def test_predictions_of_routing_come_from_the_finished_model(finished):
    full = read_predictions_csv(CellFolder(finished, "echomen", 0).predictions)
    routed = read_predictions_csv(CellFolder(finished, "echomen_expert_top_k_1", 0).predictions)
    experts = full.filter(regex=r"^EF_expert_").to_numpy()
    weights = full.filter(regex=r"^weight_").to_numpy()
    # With one clip per video the heaviest expert decides alone.
    assert routed["EF_pred"].to_numpy() == pytest.approx(
        experts[np.arange(len(full)), weights.argmax(axis=1)], abs=1e-4
    )
