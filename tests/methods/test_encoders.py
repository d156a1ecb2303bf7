import pytest

from echomen_hf import EchoMENModel
from echomen_hf.inference import predict_split
from echomen_hf.methods import fit_method, get_method, list_methods, load_method_checkpoint
from echomen_hf.methods.fitting import initial_model
from echomen_hf.model.video_encoder_echomen import VideoEncoder
from helpers.tiny_encoders import tiny_encoder_config


def tiny_fields(name):
    """Configuration fields as a recipe would give them, without the type, which the method knows."""
    encoder = tiny_encoder_config(get_method(name).encoder).to_dict()
    encoder.pop("model_type")
    return {"encoder_config": encoder, "sampling_period": 4, "aggregator_hidden_size": 8, "projection_size": 8}


@pytest.mark.parametrize("name", list_methods("encoder"))
def test_model_is_echomen_on_that_encoder(name):
    method = get_method(name)
    assert not method.shares_encoder
    model = initial_model(method, 0, tiny_fields(name))
    assert type(model) is EchoMENModel and isinstance(model.encoder, VideoEncoder)
    assert model.encoder.model.config.model_type == method.encoder
    assert len(model.experts) == 3 and model.projector.fc2.out_features == 8
    assert (model.config.num_frames, model.config.image_size) == (4, 32)


def test_default_is_the_published_size():
    config = get_method("echomen_videomae").make_config()
    assert config.embedding_size == 768 and config.num_frames == 16 and config.image_size == 224


@pytest.mark.parametrize("name", ["echomen_videomae", "echomen_uniformer"])
def test_both_stages_are_trained(name, make_arguments, videos, tmp_path):
    args = make_arguments(num_train_epochs=1, stage2_num_train_epochs=1, per_device_train_batch_size=12)
    before = initial_model(get_method(name), args.seed, tiny_fields(name)).state_dict()
    model = fit_method(name, videos["train"], videos["validation"], args, model_config=tiny_fields(name))
    assert (tmp_path / "run" / "stage1").is_dir() and (tmp_path / "run" / "stage2").is_dir()
    for part in ("encoder", "projector", "regression_head", "experts", "aggregator"):
        weights = {key: value for key, value in model.state_dict().items() if key.startswith(part)}
        assert any((value != before[key]).any() for key, value in weights.items()), part
    loaded, processor = load_method_checkpoint(tmp_path / "run")
    (one, other) = (
        predict_split(each, processor, videos["test"], "center", progress=False) for each in (model, loaded)
    )
    assert [video.ejection_fraction for video in one] == [video.ejection_fraction for video in other]
