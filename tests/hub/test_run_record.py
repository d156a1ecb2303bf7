import hashlib
import json
import shutil

import pytest

from echomen_hf.hub import read_run


def test_a_finished_run_is_found_completely(run):
    record = read_run(run / "model", data_dir=run / "data")
    assert record.warnings == []
    assert sorted(record.stages) == [1, 2]
    assert record.stages[2].arguments["metric_for_best_model"] == "mae"
    assert record.evaluation.metrics_path == run / "test" / "metrics.json"
    assert list(record.evaluation.figures) == ["another_figure", "mae_by_category", "scatter"]
    assert len(record.videos) == 60
    assert (record.training_data, record.evaluated_on_synthetic) == ("synthetic", True)


def test_folder_of_a_stage_stands_for_its_run(run):
    record = read_run(run / "model" / "stage2", data_dir=run / "data")
    assert record.settings["run.crop_padding"] == 4
    assert sorted(record.stages) == [1, 2]
    assert record.evaluation.metrics_path == run / "test" / "metrics.json"


def test_stage_1_does_not_boast_of_what_followed(run):
    record = read_run(run / "model" / "stage1", data_dir=run / "data")
    assert sorted(record.stages) == [1]
    assert record.evaluation is None
    path = run / "stage1_test" / "metrics.json"
    path.parent.mkdir()
    document = json.loads((run / "test" / "metrics.json").read_text())
    path.write_text(json.dumps({**document, "model": "heart/model/stage1"}))
    assert read_run(run / "model" / "stage1").evaluation.metrics_path == path
    assert read_run(run / "model").evaluation.metrics_path == run / "test" / "metrics.json"


def test_data_that_the_model_was_not_trained_on_are_not_taken_for_its_training_data(run):
    path = run / "data" / "FileList.csv"
    path.write_text(path.read_text().replace("train0,35.0", "train0,36.0"))
    record = read_run(run / "model", data_dir=run / "data")
    assert record.training_data == "unknown"
    assert any("are not the ones that run.json names by their checksum" in warning for warning in record.warnings)


def test_data_not_marked_as_simulated_are_other_data(run):
    (run / "data" / "README.txt").unlink()
    assert read_run(run / "model", data_dir=run / "data").training_data == "other"


def test_a_training_on_the_stream_of_the_simulation_is_synthetic_without_any_folder(run):
    path = run / "model" / "run.json"
    settings = json.loads(path.read_text())
    del settings["run.file_list_sha256"]
    path.write_text(json.dumps({**settings, "run.simulation.simulated_videos": 2400}))
    assert read_run(run / "model").training_data == "synthetic"


def test_echonet_dynamic_is_recognised_by_its_numbers_of_videos(run, monkeypatch):
    (run / "data" / "README.txt").unlink()
    counts = {"train": 20, "validation": 10, "test": 30}
    monkeypatch.setattr("echomen_hf.hub.run_record.ECHONET_DYNAMIC_VIDEOS", counts)
    record = read_run(run / "model", data_dir=run / "data")
    assert record.training_data == "echonet_dynamic"
    assert record.evaluated_on_videos
    record.evaluation.predictions.loc[0, "FileName"] = "of another data set"
    assert not record.evaluated_on_videos


def test_what_is_missing_is_named(run):
    shutil.rmtree(run / "test")
    (run / "model" / "run.json").unlink()
    warnings = "\n".join(read_run(run / "model").warnings)
    assert "run.json is missing" in warnings
    assert "Run `echomen evaluate`" in warnings
    assert "Name their folder as `--data_dir`" in warnings
    assert "not loaded from the folder of a run" in read_run(None).warnings[0]


def test_evaluation_of_another_model_is_not_taken(run):
    path = run / "test" / "metrics.json"
    document = json.loads(path.read_text())
    for model, found in (("heart/model", True), (str(run / "model"), True), ("heart/other", False), ("/model", False)):
        path.write_text(json.dumps({**document, "model": model}))
        assert (read_run(run / "model").evaluation is not None) is found, model
    assert read_run(run / "model", run / "test").evaluation is not None


def test_evaluation_of_earlier_weights_is_not_taken(run):
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(b"these")
    path = run / "test" / "metrics.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "model_sha256": hashlib.sha256(b"these").hexdigest()}))
    assert read_run(run / "model").evaluation is not None
    weights.write_bytes(b"those")
    record = read_run(run / "model")
    assert record.evaluation is None
    assert any("metrics.json is about other weights" in warning for warning in record.warnings)


def test_several_evaluations_have_to_be_chosen_from(run):
    for name, split in (("validation", "validation"), ("again", "test")):
        shutil.copytree(run / "test", run / name)
        path = run / name / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "split": split}))
    with pytest.raises(ValueError, match="Several evaluations .*again, .*test.; choose one as `--evaluation`"):
        read_run(run / "model")
    shutil.rmtree(run / "again")
    assert read_run(run / "model").evaluation.document["split"] == "test"
    with pytest.raises(FileNotFoundError, match="name the output folder of `echomen evaluate`"):
        read_run(run / "model", run / "nothing")
    with pytest.raises(FileNotFoundError, match="name the folder of the data set"):
        read_run(run / "model", data_dir=run / "nothing")


def test_damaged_file_is_named(run):
    (run / "model" / "stage1" / "training_args.json").write_text("{")
    with pytest.raises(ValueError, match="training_args.json is not JSON"):
        read_run(run / "model")
    (run / "model" / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="run.json is not a JSON object"):
        read_run(run / "model")


def test_measured_emissions_are_added_up(run):
    path = run / "model" / "stage1" / "emissions.csv"
    path.write_text("timestamp,duration,emissions\n2026-01-01,10,0.25\n2026-01-02,10,0.5\n")
    record = read_run(run / "model", data_dir=run / "data")
    assert record.stages[1].emissions == 0.75
    assert record.stages[2].emissions is None
