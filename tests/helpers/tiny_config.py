"""The model configuration that tests share."""

from echomen_hf import EchoMENConfig


TINY = {
    "depths": (1, 1),
    "hidden_sizes": (4, 8),
    "num_channels": 1,
    "num_frames": 8,
    "sampling_period": 4,
    "image_size": 32,
    "aggregator_hidden_size": 8,
    "projection_size": 8,
}


def make_tiny_config() -> EchoMENConfig:
    """Two stages of 4 and 8 channels on clips of 8 frames of 32 x 32 pixels."""
    return EchoMENConfig(**TINY)
