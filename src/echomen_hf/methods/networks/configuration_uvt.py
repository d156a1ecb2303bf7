"""Configuration of UVT."""

from huggingface_hub.dataclasses import strict

from ...model.configuration_echomen import ClipConfig, require_positive


@strict
class UVTConfig(ClipConfig):
    r"""Configuration of UVT, the ultrasound video transformer; the defaults are the published sizes.

    Args:
        encoder_sizes (`list[int]`): Channels of the frame encoder: of its first convolution, and behind each halving
            of the frame.
        encoder_depth (`int`): Residual blocks before each halving.
        hidden_size (`int`): Size of the embedding of a frame, and of the transformer.
        num_hidden_layers (`int`): Layers of the transformer.
        num_attention_heads (`int`): Heads of each of its self-attentions.
        intermediate_size (`int`): Width of the hidden layer of its feed-forward networks.
        head_hidden_size (`int`): Width of the hidden layer of the heads for ejection fraction and phase.
        hidden_dropout_prob (`float`): Dropout behind the sub-layers of the transformer, as BERT has it.
        attention_probs_dropout_prob (`float`): Dropout of attention weights.
        layer_norm_eps (`float`): Epsilon of the layer normalisation layers.
        initializer_range (`float`): Standard deviation of the initial weights of linear layers.
    """

    model_type = "uvt"

    encoder_sizes: list[int] | tuple[int, ...] = (8, 16, 32, 64, 128)
    encoder_depth: int = 8
    hidden_size: int = 1024
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    intermediate_size: int = 8192
    head_hidden_size: int = 512
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    num_frames: int = 128
    sampling_period: int = 1
    image_size: int = 128
    num_channels: int = 1

    @property
    def encoder_output_size(self) -> int:
        """Values of a frame behind the last convolution of the encoder."""
        side = self.image_size // 2 ** (len(self.encoder_sizes) - 1)
        return self.encoder_sizes[-1] * side**2

    def validate_sizes(self):
        """Check the encoder and the transformer."""
        require_positive(self, "encoder_sizes", "encoder_depth", "hidden_size", "num_hidden_layers")
        require_positive(self, "num_attention_heads", "intermediate_size", "head_hidden_size")
        factor = 2 ** (len(self.encoder_sizes) - 1)
        if len(self.encoder_sizes) < 2 or self.image_size % factor:
            raise ValueError(
                f"The frame encoder halves frames {len(self.encoder_sizes) - 1} times, at least once: `image_size` "
                f"must be a multiple of {factor}, got {self.image_size}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` {self.hidden_size} must be a multiple of `num_attention_heads` "
                f"{self.num_attention_heads}."
            )


__all__ = ["UVTConfig"]
