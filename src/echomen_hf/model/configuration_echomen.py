"""EchoMEN model configuration."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal, cast

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from .prediction_interval_echomen import check_calibration
from .recalibration_echomen import check_recalibration
from .video_encoder_echomen import as_encoder_config, encoder_clip, encoder_embedding_size


logger = logging.get_logger(__name__)

# What transformers writes into a configuration, or takes as an argument of one, without declaring it anywhere.
_UNDECLARED = ("attn_implementation", "auto_map", "custom_pipelines", "experts_implementation", "use_cache")


def is_of_transformers(name: str) -> bool:
    """Whether transformers itself writes this field into a configuration."""
    return name.startswith("_") or hasattr(PreTrainedConfig, name) or name in _UNDECLARED


def require_positive(config: PreTrainedConfig, *names: str) -> None:
    """Refuse fields whose number, or one of whose numbers, is not positive."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or min(numbers) <= 0:
            raise ValueError(f"`{name}` must be positive, got {value}.")


def require_known_fields(given: dict[str, Any], config: PreTrainedConfig) -> None:
    """Refuse fields of an encoder that its configuration took in without knowing them, as transformers allows."""
    known = {*vars(type(config)()), *config.attribute_map}
    for name in given:
        if name not in known and not is_of_transformers(name):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "check its spelling, or leave it out."
            raise ValueError(f"`encoder_config` of the type {config.model_type!r} has no field {name!r}; {hint}")


@strict
class ClipConfig(PreTrainedConfig):
    r"""Base of the configurations of networks that estimate an ejection fraction from a clip.

    Args:
        num_frames (`int`, *optional*, defaults to 32):
            Number of frames of a clip.
        sampling_period (`int`, *optional*, defaults to 2):
            A clip takes every `sampling_period`-th frame of a video recorded at `reference_fps`.
        reference_fps (`float`, *optional*, defaults to 50.0):
            Frame rate that `sampling_period` refers to; videos at another rate are resampled in time.
        image_size (`int`, *optional*, defaults to 112):
            Height and width of a frame in pixels.
        num_channels (`int`, *optional*, defaults to 3):
            Number of channels of a frame: 3 for weights pre-trained on colour video, 1 for grayscale.
    """

    num_frames: int = 32
    sampling_period: int = 2
    reference_fps: float | int = 50.0
    image_size: int = 112
    num_channels: int = 3

    @classmethod
    def own_fields(cls) -> list[str]:
        """Names of the fields that transformers does not declare, in alphabetical order."""
        return sorted({field.name for field in fields(cls)} - {field.name for field in fields(PreTrainedConfig)})

    def __post_init__(self, **kwargs):
        """Reject arguments that no field knows, and describe the one output."""
        name = type(self).__name__
        unknown = sorted(key for key in kwargs if not is_of_transformers(key))
        if unknown:
            raise TypeError(
                f"{name} got unknown arguments {unknown}; check their spelling. "
                f"Known fields: {', '.join(self.own_fields())}."
            )
        if kwargs.pop("num_labels", 1) not in (None, 1):
            raise ValueError(f"{name}: the network predicts one number, so `num_labels` must be 1.")
        # JSON turns tuples into lists; one type on both sides makes a saved configuration equal its original.
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), tuple):
                setattr(self, field.name, list(value))
        self.problem_type = "regression"
        self.id2label = {0: "ejection_fraction"}
        self.label2id = {"ejection_fraction": 0}
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Build a configuration from a stored one, without the fields that a later version has added."""
        declared = {field.name for field in fields(cls)}
        dropped = sorted(key for key in config_dict if key not in declared and not is_of_transformers(key))
        if dropped:
            logger.warning(
                f"Leaving out fields of the stored configuration that {cls.__name__} does not know: {dropped}. "
                "A newer version of echomen_hf may have saved it; with that version installed, they are used."
            )
        return super().from_dict({key: v for key, v in config_dict.items() if key not in dropped}, **kwargs)

    def validate_clip(self):
        """Check the shape and the spacing of a clip."""
        require_positive(self, "num_frames", "sampling_period", "reference_fps", "image_size")
        if self.num_channels not in (1, 3):
            raise ValueError(f"`num_channels` must be 1 (grayscale) or 3, got {self.num_channels}.")


@strict
class EchoMENConfig(ClipConfig):
    r"""Configuration of an EchoMEN model: a video encoder, a projector, a regression head and M experts.

    The defaults give the network of the paper: R(2+1)D-18 on 32 frames of 112 x 112 pixels with three experts,
    31.7 million parameters in all, 31.3 million of them in the encoder. The shape of a clip is documented at
    `ClipConfig`.

    Args:
        depths (`list[int]`, *optional*, defaults to `(2, 2, 2, 2)`):
            Number of residual blocks in each stage of the encoder; its length is the number of stages.
        hidden_sizes (`list[int]`, *optional*, defaults to `(64, 128, 256, 512)`):
            Number of channels of each stage. The stem has as many as the first stage; the embedding as the last.
        stem_mid_channels (`int`, *optional*):
            Channels between the spatial and the temporal convolution of the stem. Defaults to 45 for a stem of 64
            channels, as in torchvision, and to the same proportion for other widths.
        stem_stride (`int`, *optional*, defaults to 2):
            Stride of the stem in height and width; 4 quarters the cost of everything behind it.
        encoder_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of a video model of transformers, such as VideoMAE, TimeSformer, ViViT or V-JEPA 2, or of
            `UniFormerConfig` or `UVTConfig`, that takes the place of R(2+1)D. `num_frames`, `image_size` and
            `num_channels` then follow it, and the fields above are not used.
        encoder_pooling (`str`, *optional*, defaults to `"mean"`):
            How such a model makes one vector of a clip: `"mean"` of its tokens, or by its own `"pooler"`; the vector
            is layer-normalised.
        encoder_name_or_path (`str`, *optional*):
            Name of the pre-trained weights of such a model, for the model card.
        encoder_license (`str`, *optional*):
            Their licence, likewise; `None` if it is not known.
        vector_size (`int`, *optional*):
            Length of the vectors that a model without an encoder was trained on; it takes `embedding` only.
        adapter_size (`int`, *optional*):
            Width of a perceptron, added to the identity, between the encoder and all heads. Stage 1 trains it where
            the encoder itself is not trained, such as on vectors. `None` for no adapter, as in the paper.
        num_experts (`int`, *optional*, defaults to 3):
            Number of regression experts M.
        expert_top_k (`int`, *optional*):
            In evaluation mode, evaluate only this many of the heaviest experts per sample and renormalise their
            weights. `None` evaluates all M, which is exactly the paper.
        aggregator_hidden_size (`int`, *optional*, defaults to 128):
            Width of the hidden layer of the aggregator.
        expert_aggregation (`str`, *optional*, defaults to `"aggregator"`):
            `"aggregator"` weighs the experts by the aggregator's softmax, `"mean"` averages them (ablation d).
        projection_hidden_size (`int`, *optional*):
            Width of the hidden layer of the projector. Defaults to the size of the embedding.
        projection_size (`int`, *optional*, defaults to 128):
            Size of the L2-normalised projection that the contrastive loss compares.
        initial_ejection_fraction (`float`, *optional*, defaults to 55.6):
            Initial bias of the regression head and of every expert, in percent.
        head_initializer_range (`float`, *optional*, defaults to 0.01):
            Standard deviation of the initial weights of the regression head and of every expert, in EF points per
            feature. A small network that Adam trains may need about 1, see "Choices that the paper leaves open" in the
            documentation.
        batch_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the batch normalisation layers.
        batch_norm_momentum (`float`, *optional*, defaults to 0.1):
            Momentum of the running statistics of the batch normalisation layers.
        prediction_head (`str`, *optional*, defaults to `"experts"`):
            Where `ejection_fraction` comes from: `"regression"` (the head of stage 1) or `"experts"` (stage 2). `None`
            for an encoder without a trained head, with which training starts.
        expert_bin_width (`float`, *optional*, defaults to 1.0):
            Width in EF points of the label bins that weighed the experts' training samples; a record for figures.
        expert_min_count (`float`, *optional*):
            Smallest bin count used then, `None` for 1 % of the training set; a record for figures.
        interval_calibration (`dict`, *optional*):
            Result of `calibrate_intervals`, which turns a prediction into an interval, with the test protocol it holds
            for; `None` for a model that was not calibrated.
        recalibration (`dict`, *optional*):
            Curve through points (`predicted`, `corrected`) in percent that corrects every ejection fraction of the
            model, as `echomen adapt` fits it to the videos of one site; `None` for no correction.
        usual_distance (`float`, *optional*):
            Distance from the training distribution that 99 % of the videos it was calibrated on do not exceed; `None`
            for a model without this distribution.

    Example:
    ```python
    >>> from echomen_hf import EchoMENConfig, EchoMENModel

    >>> config = EchoMENConfig(depths=(1, 1), hidden_sizes=(8, 16), image_size=56, num_frames=16)
    >>> model = EchoMENModel(config)
    >>> model.config.embedding_size
    16
    ```
    """

    model_type = "echomen"

    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    stem_mid_channels: int | None = None
    stem_stride: int = 2
    encoder_config: dict[str, Any] | PreTrainedConfig | None = None
    encoder_pooling: Literal["mean", "pooler"] = "mean"
    encoder_name_or_path: str | None = None
    encoder_license: str | None = None
    vector_size: int | None = None
    adapter_size: int | None = None
    num_experts: int = 3
    expert_top_k: int | None = None
    aggregator_hidden_size: int = 128
    expert_aggregation: Literal["aggregator", "mean"] = "aggregator"
    projection_hidden_size: int | None = None
    projection_size: int = 128
    initial_ejection_fraction: float | int = 55.6
    head_initializer_range: float | int = 0.01
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    prediction_head: Literal["regression", "experts"] | None = "experts"
    expert_bin_width: float | int = 1.0
    expert_min_count: float | int | None = None
    interval_calibration: dict[str, Any] | None = None
    recalibration: dict[str, Any] | None = None
    usual_distance: float | int | None = None

    def __post_init__(self, **kwargs):
        """Fill in derived values."""
        if self.encoder_config is not None:
            given, self.encoder_config = self.encoder_config, as_encoder_config(self.encoder_config)
            if isinstance(given, dict):
                require_known_fields(given, self.encoder_config)
            self.num_frames, self.image_size, self.num_channels = encoder_clip(self.encoder_config)
        if self.stem_mid_channels is None and self.hidden_sizes:
            self.stem_mid_channels = max(1, round(45 * self.hidden_sizes[0] / 64))
        if self.projection_hidden_size is None and self.hidden_sizes:
            self.projection_hidden_size = self.embedding_size
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Build a configuration from a stored one, where a later transformers may have added fields of the encoder."""
        if config_dict.get("encoder_config") is not None:
            config_dict = {**config_dict, "encoder_config": as_encoder_config(config_dict["encoder_config"])}
        return super().from_dict(config_dict, **kwargs)

    @property
    def embedding_size(self) -> int:
        """Size of the pooled encoder feature."""
        if self.vector_size is not None:
            return self.vector_size
        if isinstance(self.encoder_config, PreTrainedConfig):
            return encoder_embedding_size(self.encoder_config, self.encoder_pooling)
        return self.hidden_sizes[-1]

    @property
    def num_hidden_layers(self) -> int:
        """Number of encoder stages, so that `output_hidden_states` can select hidden states by negative index."""
        if self.encoder_config is not None:
            return cast(Any, self.encoder_config).num_hidden_layers
        return len(self.depths)

    def validate_encoder(self):
        """Check that depths and widths describe a network that the input fits through."""
        if not self.depths or len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"`depths` {self.depths} and `hidden_sizes` {self.hidden_sizes} need the same length, one entry per "
                "stage of the encoder."
            )
        if min(self.depths) < 1 or min(self.hidden_sizes) < 1:
            raise ValueError("Every stage needs at least one block and one channel.")
        require_positive(self, "stem_mid_channels", "stem_stride")
        if self.vector_size is not None:
            require_positive(self, "vector_size")
            if self.encoder_config is not None:
                raise ValueError("`vector_size` is that of a model without an encoder; leave out `encoder_config`.")

    def validate_heads(self):
        """Check the sizes of the adapter, the projector, the experts and the aggregator."""
        if self.adapter_size is not None:
            require_positive(self, "adapter_size")
        require_positive(self, "num_experts", "aggregator_hidden_size", "projection_hidden_size", "projection_size")
        if self.expert_top_k is not None and not 1 <= self.expert_top_k <= self.num_experts:
            raise ValueError(
                f"`expert_top_k` must lie between 1 and `num_experts` ({self.num_experts}), got {self.expert_top_k}; "
                "`None` evaluates every expert."
            )

    def validate_interval_calibration(self):
        """Check a stored calibration of prediction intervals."""
        if self.interval_calibration is not None:
            check_calibration(self.interval_calibration)

    def validate_recalibration(self):
        """Check a stored recalibration."""
        if self.recalibration is not None:
            check_recalibration(self.recalibration)


__all__ = ["ClipConfig", "EchoMENConfig", "is_of_transformers", "require_positive"]
