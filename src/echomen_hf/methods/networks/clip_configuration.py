"""What the configurations of networks of other architectures have in common: the clip, and strictness."""

from dataclasses import fields
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from ...model.configuration_echomen import _LIBRARY_KEYS


logger = logging.get_logger(__name__)


@strict
class ClipModelConfig(PreTrainedConfig):
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
            Number of channels of a frame: 3, or 1 for grayscale.
    """

    num_frames: int = 32
    sampling_period: int = 2
    reference_fps: float | int = 50.0
    image_size: int = 112
    num_channels: int = 3

    def __post_init__(self, **kwargs):
        """Reject arguments that no field knows, and describe the one output."""
        name = type(self).__name__
        unknown = sorted(set(kwargs) - _LIBRARY_KEYS)
        if unknown:
            own = {field.name for field in fields(self)} - {field.name for field in fields(PreTrainedConfig)}
            raise TypeError(
                f"{name} got unknown arguments {unknown}; check their spelling. Known fields: "
                f"{', '.join(sorted(own))}."
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
        """Build a configuration from a stored one, leaving out what a later version of a library may have added.

        Args:
            config_dict (`dict[str, Any]`): Content of `config.json`.
            kwargs: Fields to change, and `return_unused_kwargs`.

        Returns:
            The configuration, or a tuple of it and the unused arguments.
        """
        known = {field.name for field in fields(cls)} | _LIBRARY_KEYS
        dropped = sorted(set(config_dict) - known)
        if dropped:
            logger.warning(
                f"Leaving out fields of the stored configuration that {cls.__name__} does not know: {dropped}."
            )
        return super().from_dict({name: v for name, v in config_dict.items() if name not in dropped}, **kwargs)

    def validate_clip(self):
        """Check the shape and the spacing of a clip."""
        require_positive(self, "num_frames", "sampling_period", "reference_fps", "image_size")
        if self.num_channels not in (1, 3):
            raise ValueError(f"`num_channels` must be 1 (grayscale) or 3, got {self.num_channels}.")


def require_positive(config: PreTrainedConfig, *names: str) -> None:
    """Refuse sizes that are not positive.

    Args:
        config: Configuration.
        names: Fields that hold a number or a list of numbers.

    Raises:
        ValueError: If one of them is not positive, or a list is empty.
    """
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, list) else [value]
        if not numbers or min(numbers) <= 0:
            raise ValueError(f"`{name}` must be positive, got {value}.")


__all__ = ["ClipModelConfig", "require_positive"]
