"""Networks of the architecture rivals that train in seconds, on clips of frames of 32 x 32 pixels."""

import torch

from echomen_hf.methods import get_method


CLIP = {"num_frames": 8, "sampling_period": 4, "image_size": 32, "num_channels": 1}

SMALL_NETWORKS = {
    "esfeh": {**CLIP, "depths": (1, 1), "hidden_sizes": (4, 8), "num_samples": 10},
    "uvt": {
        **CLIP,
        "encoder_sizes": (4, 8, 8),
        "encoder_depth": 1,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "head_hidden_size": 8,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "echognn": {
        **CLIP,
        "hidden_sizes": (8, 16, 32),
        "attention_hidden_size": 16,
        "graph_hidden_sizes": (16, 16),
        "regression_hidden_size": 16,
    },
    "echocotr": {
        **CLIP,
        "depths": (1, 1, 1),
        "hidden_sizes": (8, 8, 16),
        "num_local_stages": 1,
        "local_kernel_size": 3,
        "head_dim": 8,
        "stem_stride": (2, 2, 2),
    },
}
"""Configuration fields by method."""


def small_config(name, **changes):
    """Make the configuration of a small network."""
    return get_method(name).make_config({**SMALL_NETWORKS[name], **changes})


def small_model(name, seed=0, **changes):
    """Make a small network with weights that a seed drew."""
    torch.manual_seed(seed)
    return get_method(name).model_class(small_config(name, **changes)).eval()
