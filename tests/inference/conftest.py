import pytest
import torch
from torch import nn

from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from helpers.tiny_config import make_tiny_config


@pytest.fixture
def experienced_model() -> EchoMENModel:
    """A tiny model of three channels whose batch statistics and heads are not those of a new one."""
    torch.manual_seed(0)
    config = make_tiny_config()
    config.num_channels = 3
    model = EchoMENModel(config).eval()
    for layer in model.encoder.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    for part in (model.experts, model.aggregator, model.regression_head):
        for parameter in part.parameters():
            parameter.data += torch.randn(parameter.shape)
    return model


@pytest.fixture
def three_channel_processor(experienced_model) -> EchoMENVideoProcessor:
    """Its video processor, with one mean and standard deviation for all channels."""
    return EchoMENVideoProcessor.for_model(experienced_model.config)
