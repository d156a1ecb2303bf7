"""Video models of two layers, on clips of 4 frames of 32 x 32 pixels."""

from transformers import TimesformerConfig, VideoMAEConfig, VivitConfig, VJEPA2Config

from echomen_hf.methods.networks.configuration_uniformer import UniFormerConfig
from echomen_hf.methods.networks.configuration_uvt import UVTConfig


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = {"num_frames": 4, "image_size": 32}


def tiny_encoder_config(name, **changes):
    """Make the configuration of a small video model."""
    makers = {
        "videomae": lambda **c: VideoMAEConfig(intermediate_size=32, **SMALL, **{**CLIP, **c}),
        "timesformer": lambda **c: TimesformerConfig(intermediate_size=32, **SMALL, **{**CLIP, **c}),
        "vivit": lambda **c: VivitConfig(intermediate_size=32, **SMALL, **{**CLIP, **c}),
        "vjepa2": lambda **c: VJEPA2Config(
            **{
                "crop_size": 32,
                "frames_per_clip": 4,
                "mlp_ratio": 2,
                "num_pooler_layers": 1,
                "pred_hidden_size": 16,
                "pred_num_attention_heads": 2,
                "pred_num_hidden_layers": 1,
                **SMALL,
                **c,
            }
        ),
        "echo_uniformer": lambda **c: UniFormerConfig(
            depths=(1, 1), hidden_sizes=(8, 16), num_local_stages=1, local_kernel_size=3, head_dim=8, **{**CLIP, **c}
        ),
        "uvt": lambda **c: UVTConfig(
            encoder_sizes=(2, 4, 4),
            encoder_depth=1,
            intermediate_size=32,
            **{**SMALL, "num_hidden_layers": 3, **CLIP, **c},
        ),
    }
    return makers[name](**changes)


OF_TRANSFORMERS = ["videomae", "timesformer", "vivit", "vjepa2"]
ENCODERS = [*OF_TRANSFORMERS, "echo_uniformer", "uvt"]
