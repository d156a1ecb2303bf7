import json
import shutil

import pytest
import torch
from transformers import TrainerCallback

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.inference import load_checkpoint, predict_split
from echomen_hf.methods import get_method, list_methods
from echomen_hf.methods.fitting import initial_model
from echomen_hf.methods.method_trainer import MethodStage
from echomen_hf.training import EchoMENTrainer


# Methods whose result is an EchoMEN model; networks of another architecture are tested in test_networks.py.
OF_ECHOMEN = [name for name in list_methods() if get_method(name).shares_encoder]
OF_ECHOMEN = [name for name in OF_ECHOMEN if get_method(name).model_class.config_class is EchoMENConfig]
LOSS_SIDE = [name for name in OF_ECHOMEN if get_method(name).loss is not None]


def assert_equal_weights(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_losses_that_would_pass_an_adapter_by_are_refused(tiny_config, make_arguments):
    tiny_config.adapter_size = 4
    with pytest.raises(ValueError, match="Only EchoMEN itself has an adapter: leave `adapter_size` out"):
        MethodStage(
            make_arguments(stage=1),
            EchoMENModel(tiny_config),
            torch.tensor([20.0, 60.0]),
            loss=get_method("rank_n_contrast").loss,
        )


@pytest.mark.parametrize("name", OF_ECHOMEN)
def test_result_loads_and_predicts_like_any_other_model(name, run, tmp_path, videos):
    model = run(name)
    loaded, processor = load_checkpoint(tmp_path / "run")
    assert type(loaded) is EchoMENModel
    assert_equal_weights(model, loaded)
    predictions = predict_split(loaded, processor, videos["validation"], "center", progress=False)
    own = predict_split(model, processor, videos["validation"], "center", progress=False)
    assert [p.ejection_fraction for p in predictions] == [p.ejection_fraction for p in own]
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["run.method"] == name
    assert described["run.options"] == get_method(name).options


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "group_dir" else name for name in LOSS_SIDE]
)
def test_learns(name, make_arguments, make_data, tiny_fields):
    """Ten clips that can be learnt by heart: in seconds the error falls below that of the best constant."""
    method = get_method(name)
    # As published, contrast and geometry outweigh ten labels for hundreds of steps.
    options = {"adacon": {"scale": 10.0}, "srl": {"contrast_weight": 1.0, "enveloping_weight": 1.0}}.get(name)
    # The regressor of a group sees one or two of the ten.
    epochs = 200 if name == "group_dir" else 50
    args = method.training_arguments(
        make_arguments(
            optim="adamw_torch",
            learning_rate=2e-2,
            stage2_learning_rate=0.1,
            num_train_epochs=epochs,
            stage2_num_train_epochs=50,
            lr_scheduler_type="linear",
            per_device_train_batch_size=10,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_steps=50,
        )
    )
    model = initial_model(method, 1, tiny_fields)
    for stage in args.stages:
        clips, _ = make_data(args.num_views if stage == 1 else 1, crop_padding=0)
        items = [clips[index] for index in range(10)]
        make_trainer = method.make_trainer(options)
        trainer = make_trainer(model=model, args=args.for_stage(stage, args.output_dir), train_dataset=items)
        trainer.train()
    clips, _ = make_data(crop_padding=0)
    batch = with_pixel_values(collate_clips([clips[index] for index in range(10)]))
    with torch.no_grad():
        predicted = model.eval()(pixel_values=batch["pixel_values"]).ejection_fraction
    labels = batch["labels"]
    constant = (labels - labels.median()).abs().mean()
    assert (predicted - labels).abs().mean() < 0.75 * constant


def test_all_methods_start_from_the_same_encoder(tiny_fields):
    models = [initial_model(get_method(name), 3, tiny_fields) for name in OF_ECHOMEN]
    for model in models[1:]:
        assert_equal_weights(models[0].encoder, model.encoder)
        assert_equal_weights(models[0].regression_head, model.regression_head)


def test_all_methods_see_the_same_videos_in_the_same_order(run, monkeypatch):
    seen = {}
    original = EchoMENTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training and self.args.stage == "1":
            # The first crop of a clip depends on nothing but the seed, the epoch and the video.
            clips = inputs["pixel_values"]
            first = clips[:, 0] if clips.ndim == 6 else clips
            seen[name].append((inputs["labels"].tolist(), first.sum(dim=(1, 2, 3, 4)).tolist()))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(EchoMENTrainer, "compute_loss", compute_loss)
    for name in ("echomen", "echonet", "ranksim", "balanced_mse"):
        seen[name] = []
        run(name, name)
    assert len(seen["echomen"]) == 8
    assert all(batches == seen["echomen"] for batches in seen.values())


@pytest.mark.parametrize("name", ["ddir", "ranksim", "balanced_mse", "rank_n_contrast"])
@pytest.mark.parametrize(
    "save",
    [
        {"save_strategy": "epoch"},
        pytest.param({"save_strategy": "steps", "save_steps": 5}, marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(name, save, run, monkeypatch, tmp_path):
    """Also where the checkpoint lies within an epoch, whose feature statistics are half gathered by then."""

    class PowerCut(Exception):
        pass

    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 7:
                raise PowerCut

    if save["save_strategy"] == "steps":
        save = {**save, "eval_strategy": "steps", "eval_steps": 5}
    settings = {"num_train_epochs": 3, "learning_rate": 1e-3, **save}
    expected = run(name, "uninterrupted", **settings)
    original = EchoMENTrainer.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Cut())

    with monkeypatch.context() as patch:
        patch.setattr(EchoMENTrainer, "__init__", init)
        with pytest.raises(PowerCut):
            run(name, "interrupted", **settings)
    assert list((tmp_path / "interrupted" / "stage1").glob("checkpoint-*"))
    assert_equal_weights(run(name, "interrupted", **settings), expected)


def test_finished_run_is_not_repeated(run, tmp_path):
    first = run("ddir")
    weights = tmp_path / "run" / "stage1" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert_equal_weights(run("ddir"), first)
    assert weights.stat().st_mtime_ns == written


def test_folder_of_another_method_or_option_is_refused(run):
    run("focal_r")
    with pytest.raises(ValueError, match="run.method was 'focal_r' and is 'echonet'"):
        run("echonet")
    with pytest.raises(ValueError, match="run.options was .*'beta': 0.2.* and is .*'beta': 0.4"):
        run("focal_r", options={"beta": 0.4})


def test_options_change_the_result(run):
    assert not torch.equal(
        run("focal_r", "one").regression_head.weight,
        run("focal_r", "two", options={"error": "mse"}).regression_head.weight,
    )


def test_given_weights_are_taken_for_what_a_method_shares(tiny_model, tiny_fields):
    model = initial_model(get_method("ddir"), 3, tiny_fields, tiny_model)
    assert_equal_weights(tiny_model, model)
    single = initial_model(get_method("rank_n_contrast"), 3, tiny_fields, tiny_model)
    assert_equal_weights(tiny_model.encoder, single.encoder)


def test_weights_of_another_encoder_are_refused(tiny_model, tiny_fields):
    with pytest.raises(ValueError, match="do not fit the encoder of method 'echonet'.*encoder"):
        initial_model(get_method("echonet"), 3, {**tiny_fields, "hidden_sizes": (4, 16)}, tiny_model)


def test_stage_1_of_another_run(run, tmp_path):
    with pytest.raises(ValueError, match="'echonet' has a stage 1 of its own"):
        run("echonet", stage_1=tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished stage 1; it must be that of a 'echomen' run"):
        run("echomen_mean_of_experts", stage_1=tmp_path)


def test_unknown_method(run):
    with pytest.raises(ValueError, match="There is no method 'resnet'"):
        run("resnet")


def test_unknown_configuration_field(run):
    with pytest.raises(TypeError, match="unknown arguments"):
        run("echonet", model_config={"width": 3})


def test_result_does_not_need_the_folders_of_the_stages(run, tmp_path):
    run("balanced_mse")
    shutil.rmtree(tmp_path / "run" / "stage1")
    model, _ = load_checkpoint(tmp_path / "run")
    assert model.config.prediction_head == "regression"
    assert model.config.architectures == ["EchoMENModel"]


@pytest.mark.parametrize("name", ["ddir", "rank_n_contrast"])
def test_heads_outside_of_the_model_stay_in_full_precision(name, make_trainer_of):
    trainer, batch = make_trainer_of(name)
    kinds = []
    trainer.model.regression_head.register_forward_hook(lambda module, args, output: kinds.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = trainer.compute_loss(trainer.model, batch)
    # In half precision numbers near 55.6 are multiples of 0.25. Once by the model, and once by the loss.
    assert kinds == [torch.float32] * 2
    assert loss.dtype == torch.float32
