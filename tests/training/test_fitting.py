import json

import pytest
import torch
from transformers import TrainerCallback

from echomen_hf import EchoMENModel, EchoMENTrainer, load_echonet_dynamic
from echomen_hf.training import fit
from echomen_hf.training import fitting as two_stage


class PowerCut(Exception):
    pass


def cut_power(monkeypatch, stage, step):
    """Make training die at one step of one stage, once."""

    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if args.stage == str(stage) and state.global_step == step:
                raise PowerCut

    original = EchoMENTrainer.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Cut())

    monkeypatch.setattr(EchoMENTrainer, "__init__", init)


@pytest.fixture
def run(videos, tiny_config, tiny_processor, make_arguments, tmp_path):
    def run(name="run", train_videos=None, val_videos=None, crop_padding=3, eval_protocol="center", **changes):
        torch.manual_seed(0)
        args = make_arguments(
            **{
                "output_dir": str(tmp_path / name),
                "stage": "both",
                "num_train_epochs": 3,
                "stage2_num_train_epochs": 3,
                **changes,
            }
        )
        return fit(
            EchoMENModel(tiny_config),
            tiny_processor,
            videos["train"] if train_videos is None else train_videos,
            videos["validation"] if val_videos is None else val_videos,
            args,
            crop_padding=crop_padding,
            eval_protocol=eval_protocol,
        )

    return run


def assert_equal_weights(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_both_stages_leave_a_model_that_loads(run, tmp_path):
    model = run()
    loaded = EchoMENModel.from_pretrained(tmp_path / "run")
    assert_equal_weights(model, loaded)
    assert loaded.config.prediction_head == "experts"
    stage1 = EchoMENModel.from_pretrained(tmp_path / "run" / "stage1")
    assert stage1.config.prediction_head == "regression"
    assert_equal_weights(stage1.encoder, loaded.encoder)
    assert_equal_weights(stage1.regression_head, loaded.regression_head)


def test_same_seed_same_weights_and_other_seed_others(run):
    first, second = run("one"), run("two")
    assert_equal_weights(first, second)
    other = run("three", seed=2)
    assert not torch.equal(first.encoder.stem[0].weight, other.encoder.stem[0].weight)


@pytest.mark.parametrize(
    ("stage", "step", "settings"),
    [
        (1, 5, {}),
        pytest.param(1, 8, {"dataloader_num_workers": 1}, marks=pytest.mark.slow),
        (2, 5, {"aggregator_learning_rate_factor": 0.1}),
        # Nothing improves, so the run ends after two epochs without improvement, interrupted or not.
        pytest.param(
            1,
            9,
            {"learning_rate": 0.0, "num_train_epochs": 9, "early_stopping_patience": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    run, monkeypatch, tmp_path, stage, step, settings
):
    # 22 training videos in batches of 6 make 4 steps an epoch: a checkpoint lies before each of these steps.
    expected = run("uninterrupted", **settings)
    with monkeypatch.context() as patch:
        cut_power(patch, stage, step)
        with pytest.raises(PowerCut):
            run("interrupted", **settings)
    assert_equal_weights(run("interrupted", **settings), expected)
    states = [
        json.loads((tmp_path / name / "stage1" / "trainer_state.json").read_text())
        for name in ("uninterrupted", "interrupted")
    ]
    assert states[0]["global_step"] == states[1]["global_step"]


def test_checkpoint_that_was_cut_off_is_passed_over(run, monkeypatch, tmp_path):
    expected = run("uninterrupted", save_total_limit=3)
    with monkeypatch.context() as patch:
        cut_power(patch, 1, 10)
        with pytest.raises(PowerCut):
            run("interrupted", save_total_limit=3)
    last = tmp_path / "interrupted" / "stage1" / "checkpoint-8"
    (last / "trainer_state.json").write_text('{"best_metric": 1')
    (last / "optimizer.pt").unlink()
    assert_equal_weights(run("interrupted", save_total_limit=3), expected)


def test_finished_run_computes_nothing(run, monkeypatch, capsys):
    expected = run()
    monkeypatch.setattr(EchoMENTrainer, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert_equal_weights(run(), expected)


def test_finished_run_says_so(run, monkeypatch):
    run(stage=1)
    # Not by what reaches a handler: libraries that other tests import disable loggers that exist already.
    heard: list[str] = []
    monkeypatch.setattr(two_stage.logger, "warning", heard.append)
    run(stage=1)
    assert [message for message in heard if "Stage 1 is finished already" in message]


def test_stages_one_after_the_other_are_both_stages_together(run, tmp_path):
    expected = run("together")
    run("apart", stage=1)
    assert_equal_weights(run("apart", stage=2), expected)
    # Asking for stage 1 once more leaves the final model in its place.
    assert_equal_weights(run("apart", stage=1), expected)
    assert EchoMENModel.from_pretrained(tmp_path / "apart").config.prediction_head == "experts"


def test_stage_2_alone_keeps_the_encoder_it_was_given(run, tiny_config):
    torch.manual_seed(0)
    given = EchoMENModel(tiny_config)
    model = run(stage=2)
    assert_equal_weights(model.encoder, given.encoder)
    assert not torch.equal(model.experts[0].weight, given.experts[0].weight)


def test_folder_of_a_run_with_other_settings_is_refused(run, tmp_path):
    run(stage=1)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(
        ValueError, match=r"other settings \(training.contrastive_weight was 0.5 and is 2.0.*--output_dir"
    ):
        run(stage=1, contrastive_weight=2.0)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_run_that_is_older_than_an_argument_goes_on(run, tmp_path):
    run(stage=1)
    path = tmp_path / "run" / "run.json"
    settings = json.loads(path.read_text())
    for name in ("training.embedding_draws", "training.expert_solver", "model.stem_stride"):
        del settings[name]
    path.write_text(json.dumps(settings))
    run(stage=1)
    with pytest.raises(ValueError, match=r"training.expert_solver was 'gradient' and is 'least_squares'"):
        run(stage="both", expert_solver="least_squares", embedding_draws=1)


def test_other_validation_clips_are_another_run(run):
    run(stage=1)
    with pytest.raises(ValueError, match=r"run.eval_protocol was 'center' and is 'windows'"):
        run(stage=1, eval_protocol="windows")


def test_folder_is_not_claimed_by_a_run_that_cannot_start(run, tmp_path):
    with pytest.raises(ValueError, match="negative padding"):
        run(stage=1, crop_padding=-1)
    with pytest.raises(ValueError, match="Unknown protocol"):
        run(stage=1, eval_protocol="some")
    assert not (tmp_path / "run").exists()
    run(stage=1)


@pytest.mark.slow
def test_rows_in_a_list(run, videos):
    model = run(stage=1, train_videos=list(videos["train"]), val_videos=list(videos["validation"]))
    assert_equal_weights(model, run("other", stage=1))


def test_stream_is_refused(run, echonet_dir):
    stream = load_echonet_dynamic(echonet_dir, split="train", streaming=True)
    with pytest.raises(TypeError, match="streaming=False"):
        run(stage=1, train_videos=stream)


def test_identical_labels_train_through_both_stages(run, videos):
    rows = [{**row, "ejection_fraction": 55.0} for row in videos["train"]]
    model = run(train_videos=rows, num_train_epochs=1, stage2_num_train_epochs=1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_single_training_video(run, videos):
    model = run(train_videos=[videos["train"][0]], num_train_epochs=1, stage2_num_train_epochs=1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_settings_that_change_no_result_do_not_matter(run):
    expected = run(stage=1)
    assert_equal_weights(run(stage=1, logging_steps=5, save_total_limit=3, activation_checkpointing=True), expected)


def test_run_file_tells_what_was_run(run, tmp_path):
    run(stage=1)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["model.hidden_sizes"] == [4, 8]
    assert described["training.seed"] == 1
    assert described["run.crop_padding"] == 3


@pytest.mark.parametrize(
    "changes", [{"metric_for_best_model": "r2"}, {"stage2_metric_for_best_model": "balanced_mae"}]
)
def test_metric_that_val_does_not_give_is_found_before_training(run, videos, tmp_path, changes):
    healthy = [row for row in videos["train"] if row["ejection_fraction"] >= 50][:2]
    with pytest.raises(ValueError, match="cannot be chosen by '(r2|balanced_mae)': the validation split gives.*mae"):
        run(val_videos=healthy, **changes)
    assert not (tmp_path / "run").exists()
