"""What every network of another architecture has to do, whichever it is."""

import inspect
import json

import pytest
import torch
from transformers import TrainerCallback

from echomen_hf import Predictor
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.inference import predict_split
from echomen_hf.methods import (
    ArchitectureTrainer,
    fit_method,
    get_method,
    load_method_checkpoint,
    trained_parameter_count,
)
from echomen_hf.methods.fitting import initial_model
from helpers.small_networks import SMALL_NETWORKS, small_config, small_model


NAMES = list(SMALL_NETWORKS)
# Parameters of the default sizes, and the millions that the publications are quoted with.
SIZES = {
    "esfeh": (31_301_151, None),
    "uvt": (346_734_650, 346.8),
    "echognn": (1_685_079, 1.7),
    "echocotr": (21_195_713, 21.0),
}
CLIP_RULES = {
    "esfeh": (32, 2, 112, 3),
    "uvt": (128, 1, 128, 1),
    "echognn": (64, 1, 112, 1),
    "echocotr": (36, 4, 112, 3),
}
# Enough to learn ten clips by heart: learning rate and epochs.
BY_HEART = {"esfeh": (0.1, 100), "uvt": (5e-3, 50), "echognn": (1e-2, 80), "echocotr": (3e-2, 80)}


def random_clips(name, count=3, seed=1):
    config = small_config(name)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, config.num_frames, 1, 32, 32, generator=generator)


@pytest.mark.parametrize("name", NAMES)
class TestConfiguration:
    def test_round_trip(self, name, tmp_path):
        config = small_config(name)
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path)
        assert loaded.to_dict() == config.to_dict()
        assert loaded.num_labels == 1

    def test_misspelt_field_is_refused(self, name):
        with pytest.raises(TypeError, match="unknown arguments .'hidden_sises'.*Known fields: .*image_size"):
            small_config(name, hidden_sises=(4, 8))

    def test_field_of_a_later_library_is_left_out(self, name, tmp_path):
        small_config(name).save_pretrained(tmp_path)
        content = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**content, "invented_later": 3}))
        loaded = type(small_config(name)).from_pretrained(tmp_path)
        assert loaded.to_dict() == small_config(name).to_dict()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_frames": 0}, "`num_frames` must be positive, got 0"),
            ({"num_channels": 2}, "`num_channels` must be 1 .grayscale. or 3"),
            ({"num_labels": 2}, "`num_labels` must be 1"),
            ({"image_size": "32"}, "image_size"),
        ],
    )
    def test_wrong_value_is_refused(self, name, changes, message):
        with pytest.raises(Exception, match=message):
            small_config(name, **changes)

    def test_every_field_is_documented(self, name):
        config_class = get_method(name).model_class.config_class
        text = "".join(inspect.getdoc(part) or "" for part in config_class.__mro__[:2])
        for field in config_class.__annotations__:
            if field != "model_type":
                assert f"{field} (`" in text or field in CLIP_FIELDS, field

    def test_clip_rule(self, name):
        processor = get_method(name).processor_class.for_model(get_method(name).make_config())
        rule = (processor.num_frames, processor.sampling_period, processor.crop_size["height"], processor.num_channels)
        assert rule == CLIP_RULES[name]
        assert processor.reference_fps == 50


CLIP_FIELDS = ("num_frames", "sampling_period", "reference_fps", "image_size", "num_channels")


@pytest.mark.parametrize("name", NAMES)
class TestNetwork:
    def test_size_of_the_published_network(self, name):
        method = get_method(name)
        with torch.device("meta"):
            model = method.model_class(method.make_config())
        expected, published = SIZES[name]
        assert model.num_parameters() == expected
        assert trained_parameter_count(method, model) == expected
        if published is not None:
            assert expected / 1e6 == pytest.approx(published, rel=0.01)

    def test_round_trip(self, name, tmp_path):
        model = small_model(name)
        clips = random_clips(name)
        with torch.no_grad():
            model.train()(clips)  # moves the statistics of batch normalisation
            expected = model.eval()(clips).ejection_fraction
        model.save_pretrained(tmp_path)
        loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
        with torch.no_grad():
            assert torch.equal(loaded.eval()(clips).ejection_fraction, expected)

    def test_clip_has_the_same_estimate_in_every_batch(self, name):
        model, clips = small_model(name), random_clips(name, 4)
        with torch.no_grad():
            together = model(clips).ejection_fraction
            alone = torch.cat([model(clip[None]).ejection_fraction for clip in clips])
            again = model(clips).ejection_fraction
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
        assert torch.equal(again, together)
        assert together.std() > 0

    def test_output_suits_trainer_and_protocols(self, name):
        model, clips = small_model(name), random_clips(name)
        labels = torch.tensor([30.0, 50.0, 70.0])
        with torch.no_grad():
            output = model(clips, labels=labels)
        assert output.ejection_fraction.shape == (3,)
        assert torch.equal(output.regression, output.ejection_fraction)
        assert torch.equal(output.expert_predictions, output.logits)
        assert torch.equal(output.expert_weights, torch.ones(3, 1))
        assert output.embedding.shape[0] == 3
        torch.testing.assert_close(output.loss, (output.ejection_fraction - labels).square().mean())

    def test_wrong_clips_are_refused(self, name):
        model, clips = small_model(name), random_clips(name)
        with pytest.raises(ValueError, match=r"shape \(batch, frames, 1, height, width\), got"):
            model(clips.expand(-1, -1, 3, -1, -1))
        with pytest.raises(ValueError, match="normalised floating point"):
            model(clips.to(torch.uint8))

    def test_input_embeddings_are_the_layer_that_takes_in_pixels(self, name):
        assert small_model(name).get_input_embeddings().in_channels == 1

    def test_estimate_stays_in_single_precision(self, name):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert small_model(name)(random_clips(name)).ejection_fraction.dtype == torch.float32

    def test_loads_in_half_precision(self, name, tmp_path):
        model, clips = small_model(name), random_clips(name)
        model.save_pretrained(tmp_path)
        half = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
        assert half.dtype == torch.bfloat16
        with torch.no_grad():
            expected, output = model(clips), half(clips)
        assert output.ejection_fraction.dtype == torch.float32
        torch.testing.assert_close(output.ejection_fraction, expected.ejection_fraction, rtol=0, atol=1.0)

    def test_every_trained_parameter_gets_a_gradient(self, name):
        """Several processes could not average gradients otherwise."""
        method, model = get_method(name), small_model(name).train()
        labels = torch.tensor([30.0, 50.0, 70.0])
        loss = method.loss(labels.double().numpy())
        value, terms = loss(model, model(random_clips(name)), labels, 1)
        value.backward()
        assert value.isfinite()
        assert all(term.ndim == 0 for term in terms.values())
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@pytest.fixture
def small_data(videos, frames_of):
    """Function that makes the processor of a method and its training clips."""

    def make(name):
        method = get_method(name)
        processor = method.processor_class.for_model(small_config(name))
        return processor, method.training_clips(videos["train"], processor, 1, 0, 0, frames_of(processor))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_learns_ten_clips_by_heart(name, make_arguments, small_data):
    method, (_, clips) = get_method(name), small_data(name)
    learning_rate, epochs = BY_HEART[name]
    args = method.training_arguments(
        make_arguments(
            optim="adamw_torch",
            learning_rate=learning_rate,
            num_train_epochs=epochs,
            lr_scheduler_type="linear",
            per_device_train_batch_size=10,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_steps=epochs,
        )
    )
    items = [clips[index] for index in range(10)]
    model = initial_model(method, 1, SMALL_NETWORKS[name])
    method.make_trainer()(model=model, args=args, train_dataset=items).train()
    batch = with_pixel_values(collate_clips(items))
    with torch.no_grad():
        predicted = model.eval()(pixel_values=batch["pixel_values"]).ejection_fraction
    labels = batch["labels"]
    assert (labels - labels.median()).abs().mean() > 8
    assert (predicted - labels).abs().mean() < 2


@pytest.fixture
def fit_small(videos, frames_of, make_arguments, tmp_path):
    """Function that trains a small network in a folder."""

    def fit(name, folder="run", **model_config):
        processor = get_method(name).processor_class.for_model(small_config(name))
        return fit_method(
            name,
            videos["train"],
            videos["validation"],
            make_arguments(output_dir=str(tmp_path / folder), learning_rate=1e-3, optim="adamw_torch"),
            model_config={**SMALL_NETWORKS[name], **model_config},
            processor=processor,
            crop_padding=3,
            frames=frames_of(processor),
        )

    return fit


@pytest.mark.parametrize("name", NAMES)
def test_result_of_a_run_loads_and_predicts(name, videos, fit_small, tmp_path):
    processor = get_method(name).processor_class.for_model(small_config(name))
    model = fit_small(name)
    loaded, stored = load_method_checkpoint(tmp_path / "run")
    assert type(loaded) is type(model)
    assert type(stored) is type(processor)
    assert {**stored.to_dict(), "auto_map": None} == {**processor.to_dict(), "auto_map": None}
    predictions = predict_split(loaded, stored, videos["validation"], "windows", progress=False)
    own = predict_split(model, processor, videos["validation"], "windows", progress=False)
    assert [p.ejection_fraction for p in predictions] == [p.ejection_fraction for p in own]
    assert all(p.expert_weights.tolist() == [1.0] for p in predictions)
    one = Predictor(loaded, stored, device="cpu")(videos["validation"][0]["video"]["path"])
    assert one.ejection_fraction == pytest.approx(own[0].ejection_fraction, abs=1e-4)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["run.method"] == name
    assert described["run.options"] == get_method(name).options


@pytest.mark.parametrize(("name", "noise"), [("esfeh", {}), ("uvt", {"hidden_dropout_prob": 0.2})])
def test_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(name, noise, fit_small, monkeypatch, tmp_path):
    """Also of networks whose training draws random numbers."""

    class PowerCut(Exception):
        pass

    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.epoch > 1.3:
                raise PowerCut

    expected = fit_small(name, "uninterrupted", **noise)
    original = ArchitectureTrainer.__init__

    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.add_callback(Cut())

    with monkeypatch.context() as patch:
        patch.setattr(ArchitectureTrainer, "__init__", init)
        with pytest.raises(PowerCut):
            fit_small(name, "interrupted", **noise)
    assert list((tmp_path / "interrupted" / "stage1").glob("checkpoint-*"))
    resumed = fit_small(name, "interrupted", **noise)
    for key, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "esfeh"])
def test_weights_of_another_network_are_refused(name, tiny_model):
    with pytest.raises(ValueError, match=f"{name}.* network of its own.*leave `initial_weights` out"):
        initial_model(get_method(name), 1, SMALL_NETWORKS[name], tiny_model)


def test_published_schedules(make_arguments):
    shared = make_arguments(optim="sgd", num_train_epochs=7, weight_decay=0.5, per_device_train_batch_size=6)
    published = {name: get_method(name).training_arguments(shared, published_schedule=True) for name in NAMES}
    rates = {name: (args.optim, args.learning_rate, args.optim_args) for name, args in published.items()}
    assert rates == {
        "esfeh": ("sgd", 1e-4, "momentum=0.9"),
        "uvt": ("adamw_torch", 1e-5, None),
        "echognn": ("adamw_torch", 1e-4, None),
        "echocotr": ("adamw_torch", 1e-4, None),
    }
    assert (published["echognn"].weight_decay, published["echognn"].per_device_train_batch_size) == (0.0, 80)
    assert (published["echocotr"].num_train_epochs, published["echocotr"].per_device_train_batch_size) == (45, 25)
    assert published["uvt"].num_train_epochs == 7
