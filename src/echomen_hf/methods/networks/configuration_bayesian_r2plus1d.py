"""Configuration of the Bayesian R(2+1)D."""

from huggingface_hub.dataclasses import strict

from ...model.configuration_echomen import ClipConfig, require_positive


@strict
class BayesianR2Plus1DConfig(ClipConfig):
    r"""Configuration of an R(2+1)D encoder with a Bayesian linear head; the defaults are R(2+1)D-18.

    Fields of the encoder and of the clip mean what they mean in `EchoMENConfig`.

    Args:
        depths (`list[int]`): Number of residual blocks in each stage of the encoder.
        hidden_sizes (`list[int]`): Number of channels of each stage.
        stem_mid_channels (`int`): Channels between the spatial and the temporal convolution of the stem; 45 for a stem
            of 64.
        stem_stride (`int`): Stride of the stem in height and width.
        batch_norm_eps (`float`): Epsilon of the batch normalisation layers.
        batch_norm_momentum (`float`): Momentum of the running statistics of the batch normalisation layers.
        initial_ejection_fraction (`float`): Initial mean of the bias, and mean of its prior, in percent.
        head_initializer_range (`float`): Standard deviation of the initial means of the weights.
        initial_posterior_std (`float`): Initial standard deviation of every weight's posterior.
        prior_std (`float`): Standard deviation of the Gaussian prior of every weight.
        num_samples (`int`): Samples S of the weights that a prediction averages in evaluation mode.
        sampling_seed (`int`): Seed of these samples, so that a clip has the same estimate every time and in every
            batch.
    """

    model_type = "bayesian_r2plus1d"

    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    stem_mid_channels: int | None = None
    stem_stride: int = 2
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    initial_ejection_fraction: float | int = 55.6
    head_initializer_range: float | int = 0.01
    initial_posterior_std: float | int = 0.05
    prior_std: float | int = 1.0
    num_samples: int = 20
    sampling_seed: int = 0

    def __post_init__(self, **kwargs):
        """Fill in derived values."""
        if self.stem_mid_channels is None and self.hidden_sizes:
            self.stem_mid_channels = max(1, round(45 * self.hidden_sizes[0] / 64))
        super().__post_init__(**kwargs)

    @property
    def embedding_size(self) -> int:
        """Size of the pooled encoder feature."""
        return self.hidden_sizes[-1]

    def validate_sizes(self):
        """Check the encoder and the head."""
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"`depths` {self.depths} and `hidden_sizes` {self.hidden_sizes} need the same length.")
        require_positive(self, "depths", "hidden_sizes", "stem_mid_channels", "stem_stride", "num_samples")
        require_positive(self, "initial_posterior_std", "prior_std")


__all__ = ["BayesianR2Plus1DConfig"]
