import json

import pytest
import torch
from transformers import TrainerCallback

from echomen_hf import EchoMENModel, EchoMENTrainer
from echomen_hf.training import fit


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
    def run(name="run", **changes):
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
            EchoMENModel(tiny_config), tiny_processor, videos["train"], videos["validation"], args, crop_padding=3
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


@pytest.mark.parametrize(("stage", "step"), [(1, 5), (1, 8), (2, 5)])
def test_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(run, monkeypatch, stage, step):
    # 21 or so training videos in batches of 6 make 4 steps an epoch: checkpoints lie before each of these steps.
    expected = run("uninterrupted")
    with monkeypatch.context() as patch:
        cut_power(patch, stage, step)
        with pytest.raises(PowerCut):
            run("interrupted")
    assert_equal_weights(run("interrupted"), expected)


def test_finished_run_says_so_and_computes_nothing(run, monkeypatch, tmp_path, caplog):
    expected = run()
    monkeypatch.setattr(EchoMENTrainer, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert_equal_weights(run(), expected)


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


def test_settings_that_change_no_result_do_not_matter(run):
    expected = run(stage=1)
    assert_equal_weights(run(stage=1, logging_steps=5, save_total_limit=3), expected)


def test_run_file_tells_what_was_run(run, tmp_path):
    run(stage=1)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["model.hidden_sizes"] == [4, 8]
    assert described["training.seed"] == 1
    assert described["run.crop_padding"] == 3
