"""The model that tests of engines and exports share."""

import torch
from torch import nn

from echomen_hf import EchoMENModel
from helpers.tiny_config import make_tiny_config


def make_exportable_model() -> EchoMENModel:
    """A tiny model whose batch statistics are not 0 and 1, so folding them matters, and whose EF moves with them."""
    torch.manual_seed(0)
    model = EchoMENModel(make_tiny_config()).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    for expert in model.experts:
        nn.init.normal_(expert.weight, std=5.0)
    return model
