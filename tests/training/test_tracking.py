import copy
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EvalPrediction
from transformers.integrations import TensorBoardCallback

from echomen_hf import EchoMENTrainer
from echomen_hf.data import EvaluationClips
from echomen_hf.inference import predict_split
from echomen_hf.training.embeddings import EvaluationEmbeddings
from echomen_hf.training.tracking import EvaluationTracker, example_rows, only_ejection_fractions


def embeddings(video_index, labels):
    index, labels = np.array(video_index), np.array(labels, dtype=np.float64)
    names = [f"{position}.avi" for position in range(len(labels))]
    return EvaluationEmbeddings(torch.zeros(len(index), 2), index, labels, names)


def catch(dataset, ejection_fractions, experts, weights, has_experts=True):
    """A tracker without writers that has seen one evaluation."""
    tracker = EvaluationTracker([])
    compute = tracker.catch(lambda prediction: {"n": len(prediction.predictions)}, dataset, "eval", has_experts)
    parts = tuple(np.array(part, dtype=np.float32) for part in (ejection_fractions, experts, weights))
    metrics = compute(EvalPrediction(parts, np.zeros(len(parts[0]))))
    return tracker, metrics


@pytest.fixture
def make_trainer(make_arguments, make_data, tiny_model):
    def make(stage, **changes):
        train, evaluation = make_data(2 if stage == 1 else 1)
        return EchoMENTrainer(
            model=copy.deepcopy(tiny_model),
            args=make_arguments(stage=stage, **changes),
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=train.processor,
        )

    return make


@pytest.fixture
def tensorboard(tmp_path, monkeypatch):
    """Function that reads what was written to TensorBoard since."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))

    def read():
        accumulator = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0, "histograms": 0})
        return accumulator.Reload()

    return read


class TestCatching:
    def test_clips_of_a_video_are_averaged_and_metrics_see_the_prediction_alone(self):
        dataset = embeddings([0, 0, 1], [30.0, 60.0])
        tracker, metrics = catch(
            dataset,
            [30.0, 40.0, 60.0],
            [[20.0, np.nan], [40.0, 50.0], [np.nan, 60.0]],
            [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]],
        )
        assert metrics == {"n": 3}
        np.testing.assert_array_equal(tracker.caught.ejection_fractions, [35.0, 60.0])
        # A clip that did not consult an expert says nothing about it.
        np.testing.assert_array_equal(tracker.caught.expert_predictions, [[30.0, 50.0], [np.nan, 60.0]])
        np.testing.assert_array_equal(tracker.caught.expert_weights, [[0.75, 0.25], [0.0, 1.0]])
        assert tracker.caught.mean_weights() == {"eval_expert_0_weight": 0.375, "eval_expert_1_weight": 0.625}

    def test_no_weights_while_the_experts_are_not_asked(self):
        tracker, _ = catch(embeddings([0], [30.0]), [30.0], [[1.0, 2.0]], [[0.5, 0.5]], has_experts=False)
        assert tracker.caught.mean_weights() == {}

    def test_examples_come_from_every_category(self):
        labels = [55.0 + i / 10 for i in range(90)] + [45.0] + [39.0 - i for i in range(9)]
        dataset = embeddings(range(100), labels)
        tracker, _ = catch(dataset, labels, np.zeros((100, 2)), np.zeros((100, 2)))
        # Lowest to highest: 4 of 9 from 31 to 39, the only one between 40 and 50, and 4 of 90 from 55 to 63.9.
        assert dataset.labels[tracker.caught.examples()].tolist() == pytest.approx(
            [31.0, 34.0, 36.0, 39.0, 45.0, 55.0, 58.0, 60.9, 63.9], abs=0.11
        )

    def test_other_data_is_left_alone_and_the_last_evaluation_forgotten(self):
        tracker, _ = catch(embeddings([0], [30.0]), [30.0], [[1.0]], [[1.0]])
        compute = tracker.catch(lambda prediction: {"shape": prediction.predictions.shape}, [], "eval", True)
        assert tracker.caught is None
        parts = (np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2)))
        assert compute(EvalPrediction(parts, np.zeros(4))) == {"shape": (4,)}
        assert tracker.caught is None
        assert tracker.catch(None, [], "eval", True) is None

    def test_only_ejection_fractions(self):
        assert only_ejection_fractions((1, 2, 3)) == 1
        assert only_ejection_fractions([(1, 2, 3), (4, 5, 6)]) == [1, 4]
        assert only_ejection_fractions(None) is None

    def test_evaluation_equals_an_evaluation_of_its_own(self, make_trainer, videos):
        trainer = make_trainer(2, report_to="none")
        trainer.prepare_stage()
        caught = []
        trainer.tracker.on_evaluate = lambda *args, **kwargs: caught.append(trainer.tracker.caught)
        metrics = trainer.evaluate()
        found = predict_split(trainer.model, trainer.processing_class, videos["validation"], "windows", progress=False)
        expected = np.array([prediction.expert_weights for prediction in found])
        np.testing.assert_allclose(caught[0].expert_weights, expected, rtol=1e-5)
        expected = np.array([prediction.expert_predictions for prediction in found])
        np.testing.assert_allclose(caught[0].expert_predictions, expected, rtol=1e-5)
        mean = np.mean([prediction.expert_weights[1] for prediction in found])
        assert metrics["eval_expert_1_weight"] == pytest.approx(mean, rel=1e-5)
        assert caught[0].dataset.file_names == [row["file_name"] for row in videos["validation"]]

    def test_predictions_of_the_trainer_are_the_ejection_fractions(self, make_trainer):
        trainer = make_trainer(2)
        output = trainer.predict(trainer.eval_dataset)
        assert output.predictions.shape == (len(trainer.eval_dataset),)
        shapes = []
        trainer.preprocess_logits_for_metrics = lambda logits, labels: shapes.append(logits.shape) or logits
        again = trainer.predict(trainer.eval_dataset)
        np.testing.assert_array_equal(again.predictions, output.predictions)
        assert {len(shape) for shape in shapes} == {1}


class TestTensorBoard:
    def test_stage_1(self, make_trainer, tensorboard):
        make_trainer(1, report_to="tensorboard").train()
        events = tensorboard()
        scalars, images = events.Tags()["scalars"], events.Tags()["images"]
        assert {"train/loss", "train/loss_regression", "train/loss_contrastive"} <= set(scalars)
        assert {"eval/mse", "eval/mae", "eval/mae_hfref", "eval/mae_hfpef"} <= set(scalars)
        assert images == ["eval/examples"]
        assert len(events.Images("eval/examples")) == 2
        assert events.Tags()["histograms"] == []

    def test_stage_2(self, make_trainer, tensorboard):
        trainer = make_trainer(2, report_to="tensorboard")
        trainer.train()
        events = tensorboard()
        assert {"train/loss_experts", "train/loss_aggregator", "eval/expert_2_weight"} <= set(events.Tags()["scalars"])
        names = [f"eval/expert_{expert}_weight_distribution" for expert in range(3)]
        assert sorted(events.Tags()["histograms"]) == names
        num_videos = len(trainer.eval_dataset.labels)
        for expert, name in enumerate(names):
            last = events.Histograms(name)[-1]
            assert last.step == trainer.state.global_step
            assert last.histogram_value.num == num_videos
            mean = events.Scalars(f"eval/expert_{expert}_weight")[-1].value
            assert last.histogram_value.sum / num_videos == pytest.approx(mean, rel=1e-4)
            counts, edges = last.histogram_value.bucket, last.histogram_value.bucket_limit
            assert sum(counts) == num_videos
            middle = sum(count * (edge - 0.025) for count, edge in zip(counts, edges)) / num_videos
            assert middle == pytest.approx(mean, abs=0.026)

    def test_experts_that_were_not_consulted(self, make_trainer, tensorboard, tiny_model):
        tiny_model.config.expert_top_k = 1
        trainer = make_trainer(2, report_to="tensorboard")
        trainer.prepare_stage()
        caught = []
        send = trainer.tracker.on_evaluate
        trainer.tracker.on_evaluate = lambda *args, **kwargs: (caught.append(trainer.tracker.caught), send(*args))
        trainer.evaluate()
        assert np.isnan(caught[0].expert_predictions).any()
        assert {None, 0.0} < {cell for row in example_rows(caught[0])[1] for cell in row}
        assert len(tensorboard().Images("eval/examples")) == 1


class TestSilence:
    def test_without_a_tracker_nothing_is_drawn(self, make_trainer, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a figure was drawn for nobody")

        monkeypatch.setattr("echomen_hf.training.tracking.example_predictions_figure", refuse)
        trainer = make_trainer(2, report_to="none", num_train_epochs=1)
        trainer.train()
        assert trainer.tracker.caught is None
        # A writer that was closed, as after the end of a training, and a process that does not write.
        trainer.tracker.callbacks.append(TensorBoardCallback())
        dataset = embeddings([0], [30.0])
        trainer.tracker.caught = catch(dataset, [1.0], [[1.0]], [[1.0]])[0].caught
        trainer.tracker.on_evaluate(None, SimpleNamespace(is_world_process_zero=True, global_step=1), None)
        trainer.tracker.callbacks[-1].tb_writer = object()
        trainer.tracker.caught = catch(dataset, [1.0], [[1.0]], [[1.0]])[0].caught
        trainer.tracker.on_evaluate(None, SimpleNamespace(is_world_process_zero=False, global_step=1), None)

    def test_tracking_changes_nothing_in_the_training(self, make_trainer, tensorboard):
        def train(report_to):
            trainer = make_trainer(2, report_to=report_to)
            trainer.train()
            draws = torch.rand(1).item(), np.random.random(), random.random()
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            return trainer.model.state_dict(), losses, draws

        quiet, tracked = train("none"), train("tensorboard")
        assert quiet[1:] == tracked[1:]
        assert all(torch.equal(quiet[0][name], tracked[0][name]) for name in quiet[0])
        assert tensorboard().Tags()["images"]


TRACKED_RUN = """
import hashlib, json, sys
import trackio
from trackio.sqlite_storage import SQLiteStorage
import torch
from echomen_hf import EchoMENModel, EchoMENTrainer, EchoMENTrainingArguments, EchoMENVideoProcessor
from echomen_hf import load_echonet_dynamic
from echomen_hf.data import EvaluationClips, TrainingClips

torch.set_num_threads(1)
data, folder, output, settings = sys.argv[1:]
model, processor = EchoMENModel.from_pretrained(folder), EchoMENVideoProcessor.from_pretrained(folder)
videos = load_echonet_dynamic(data)
args = EchoMENTrainingArguments(report_to="trackio", **json.loads(settings)).for_stage(2, output)
trainer = EchoMENTrainer(
    model, args,
    train_dataset=TrainingClips(videos["train"], processor, 1, crop_padding=3),
    eval_dataset=EvaluationClips(videos["validation"], processor, "windows"),
)
trainer.train()
digest = hashlib.sha256()
for name, value in sorted(model.state_dict().items()):
    digest.update(value.numpy().tobytes())
logs = SQLiteStorage.get_logs("echo", "trial-stage2")
print("RESULT" + json.dumps({"weights": digest.hexdigest(), "logs": logs}, default=str))
"""


@pytest.mark.slow
def test_trackio(make_arguments, make_data, tiny_model, tiny_processor, echonet_dir, tmp_path):
    pytest.importorskip("trackio")
    settings = {"stage": "2", "run_name": "trial", "project": "echo", "stage2_num_train_epochs": 2, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 6, "use_cpu": True, "disable_tqdm": True, "seed": 1}
    settings |= {"learning_rate": 1e-4, "per_device_eval_batch_size": 8}
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    script = tmp_path / "run.py"
    script.write_text(TRACKED_RUN)
    # trackio settles its folder when it is imported, so it gets a process of its own.
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, str(script), str(echonet_dir), str(tmp_path / "model"), str(tmp_path / "run")]
        + [json.dumps(settings)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    result = json.loads(child.stdout.split("RESULT", 1)[1].splitlines()[0])
    logs = result["logs"]

    numbers = [entry for entry in logs if "eval/mae" in entry]
    assert len(numbers) == 2
    assert {"eval/mae_hfref", "eval/mae_hfpef", "eval/expert_2_weight"} <= numbers[0].keys()
    assert any("train/loss_experts" in entry and "train/loss_aggregator" in entry for entry in logs)
    examples = [entry for entry in logs if "eval/examples" in entry]
    assert [entry["train/global_step"] for entry in examples] == [entry["train/global_step"] for entry in numbers]
    rows = examples[-1]["eval/examples"]["_value"]
    evaluation = make_data()[1]
    by_name = dict(zip(evaluation.file_names, evaluation.labels))
    assert [row["EF"] for row in rows] == sorted(row["EF"] for row in rows)
    for row in rows:
        assert row["EF"] == pytest.approx(by_name[row["video"]], abs=0.006)
        weights = [row[f"weight {expert}"] for expert in range(3)]
        assert sum(weights) == pytest.approx(1, abs=0.002)
        assert all(0 < row[f"expert {expert}"] < 100 for expert in range(3))
    histogram = examples[-1]["eval/expert_0_weight_distribution"]
    assert sum(histogram["values"]) == len(evaluation.labels)
    np.testing.assert_allclose(histogram["bins"], np.linspace(0, 1, 21))

    # The same training without a tracker ends in the same weights, bit for bit.
    train, _ = make_data()
    quiet = EchoMENTrainer(
        model=tiny_model,
        args=make_arguments(stage="2", report_to="none"),
        train_dataset=train,
        eval_dataset=evaluation,
    )
    quiet.train()
    digest = hashlib.sha256()
    for _, value in sorted(tiny_model.state_dict().items()):
        digest.update(value.numpy().tobytes())
    assert digest.hexdigest() == result["weights"]


def test_stages_are_runs_of_their_own(make_arguments):
    args = make_arguments(stage="both", run_name="trial")
    assert [args.for_stage(stage, "x").run_name for stage in (1, 2)] == ["trial-stage1", "trial-stage2"]
    assert make_arguments(stage="both").for_stage(1, "x").run_name is None


def test_file_names_of_clips(videos, tiny_processor):
    rows = [videos["validation"][index] for index in range(2)]
    clips = EvaluationClips(rows, tiny_processor, "center")
    assert clips.file_names == [Path(row["file_name"]).name for row in rows]
