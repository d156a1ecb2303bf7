import pytest
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from echomen_hf.inference import predict_split
from echomen_hf.methods import (
    ArchitectureTrainer,
    Method,
    MethodLoss,
    fit_method,
    single_prediction,
)
from echomen_hf.model.modeling_echomen import EchoMENOutput


@strict
class BrightnessConfig(PreTrainedConfig):
    model_type = "brightness"
    num_frames: int = 8
    sampling_period: int = 4
    reference_fps: float | int = 50.0
    image_size: int = 32
    num_channels: int = 1


class BrightnessModel(PreTrainedModel):
    """A line through the mean brightness: as far from EchoMEN as a network can be."""

    config_class = BrightnessConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config):
        super().__init__(config)
        self.line = nn.Linear(1, 1)
        self.post_init()

    def forward(self, pixel_values):
        return single_prediction(self.line(pixel_values.flatten(1).mean(1, keepdim=True)).squeeze(-1))


BRIGHTNESS = Method(
    name="brightness",
    title="Brightness",
    source="None.",
    group="rival",
    loss=MethodLoss,
    trainer_class=ArchitectureTrainer,
    model_class=BrightnessModel,
    training_defaults={"stage": "1", "num_views": 1},
)


@pytest.fixture
def fit_brightness(videos, tiny_processor, frames_of, make_arguments):
    def fit(**changes):
        return fit_method(
            BRIGHTNESS,
            videos["train"],
            videos["validation"],
            make_arguments(learning_rate=0.1, **changes),
            processor=tiny_processor,
            crop_padding=3,
            frames=frames_of(tiny_processor),
        )

    return fit


def test_network_of_another_architecture_trains_and_predicts(fit_brightness, videos, tiny_processor, tmp_path):
    model = fit_brightness()
    assert isinstance(model, BrightnessModel)
    assert model.line.bias.item() > 20  # from 0 towards the mean EF
    loaded = BrightnessModel.from_pretrained(tmp_path / "run")
    assert torch.equal(loaded.line.weight, model.line.weight)
    predictions = predict_split(loaded, tiny_processor, videos["validation"], "center", progress=False)
    for prediction in predictions:
        assert prediction.ejection_fraction == prediction.regression
        assert prediction.expert_weights.tolist() == [1.0]


def test_its_run_is_refused_to_other_settings(fit_brightness):
    fit_brightness()
    with pytest.raises(ValueError, match="training.num_train_epochs was 2 and is 3"):
        fit_brightness(num_train_epochs=3)


def test_output_carries_further_parts():
    output = single_prediction(torch.tensor([50.0, 60.0]), EchoMENOutput, embedding=torch.ones(2, 4))
    assert output.ejection_fraction.tolist() == [50.0, 60.0]
    assert output.embedding.shape == (2, 4)
