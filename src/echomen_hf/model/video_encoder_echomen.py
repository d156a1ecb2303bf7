"""Video models of transformers as encoders: from a clip to one vector."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from huggingface_hub import ModelCard
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoVideoProcessor
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING


EXAMPLES = "such as videomae, timesformer, vivit or vjepa2"

# Filled by the package, and never by the copy of this file that travels with a checkpoint: functions that import an
# encoder which transformers does not know, by its model type.
PACKAGE_ENCODERS: dict[str, Callable[[], type[PreTrainedModel]]] = {}


class EncoderClip(NamedTuple):
    """Clips that a video model takes in."""

    num_frames: int
    image_size: int
    num_channels: int


def as_encoder_config(value: dict[str, Any] | PreTrainedConfig) -> PreTrainedConfig:
    """Make the configuration of a video model from its fields, with `model_type`."""
    if isinstance(value, PreTrainedConfig):
        config = copy.deepcopy(value)
        config._name_or_path = ""  # a path, which is stored with a configuration inside another, may name people
        return config
    model_type = value.get("model_type")
    if model_type in PACKAGE_ENCODERS:
        config_class = cast(Any, PACKAGE_ENCODERS[model_type]().config_class)
    elif model_type in CONFIG_MAPPING:
        config_class = CONFIG_MAPPING[model_type]
    else:
        raise ValueError(
            f"`encoder_config` is of the type {model_type!r}, which transformers does not know: give the `model_type` "
            f"of a video model, {EXAMPLES}. Types of this package itself ('echo_uniformer', 'uvt') need it installed: "
            "pip install echomen-hf."
        )
    return config_class.from_dict(value)


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Find the class of the video model that a configuration describes."""
    if config.model_type in PACKAGE_ENCODERS:
        return PACKAGE_ENCODERS[config.model_type]()
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"transformers has no model for `encoder_config` of the type {config.model_type!r}.")
    return cast(type[PreTrainedModel], MODEL_MAPPING[type(config)])


def encoder_clip(config: PreTrainedConfig) -> EncoderClip:
    """Read which clips a video model takes in, and refuse a model of anything else or with tokens that do not fit."""
    kind = f"`encoder_config` of the type {config.model_type!r}"
    num_frames = getattr(config, "num_frames", getattr(config, "frames_per_clip", None))
    size = getattr(config, "image_size", getattr(config, "crop_size", None))
    if num_frames is None or size is None:
        raise ValueError(
            f"{kind} describes no model of videos, since it has no number of frames or no size of a frame: give that "
            f"of a video model, {EXAMPLES}."
        )
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"{kind} takes in frames of {height} x {width} pixels; clips of hearts are square.")
    tubelet, patch = getattr(config, "tubelet_size", 1), getattr(config, "patch_size", 1)
    if not isinstance(tubelet, int):
        tubelet, *patch = tubelet
    sides = [patch, patch] if isinstance(patch, int) else list(patch)
    if num_frames % tubelet or any(height % side for side in sides):
        raise ValueError(
            f"{kind} cuts clips into tokens of {tubelet} frames x {sides[0]} x {sides[1]} pixels, into which "
            f"{num_frames} frames of {height} x {height} pixels do not divide: change the number of frames or the "
            "size of a frame."
        )
    channels = getattr(config, "num_channels", getattr(config, "in_chans", 3))
    return EncoderClip(num_frames, height, channels)


def encoder_embedding_size(config: PreTrainedConfig, pooling: str) -> int:
    """Size of the vector that a video model makes of a clip."""
    sizes = ("pooler_output_size",) if pooling == "pooler" else ()
    found = [getattr(config, name, None) for name in (*sizes, "embedding_size", "hidden_size")]
    size = next((size for size in found if isinstance(size, int)), None)
    if size is None:
        raise ValueError(f"`encoder_config` of the type {config.model_type!r} has no `hidden_size`.")
    return size


class VideoEncoder(nn.Module):
    """A video model whose tokens are averaged, or pooled by its own pooler, and layer-normalised.

    Parts that the vector does not depend on, such as V-JEPA 2's predictor, are left out.
    """

    def __init__(self, config: PreTrainedConfig, pooling: Literal["mean", "pooler"] = "mean") -> None:
        super().__init__()
        self.clip = encoder_clip(config)
        self.pooling = pooling
        model = encoder_class(config)(config)
        for name in ("predictor",) if pooling == "pooler" else ("predictor", "pooler"):
            if isinstance(getattr(model, name, None), nn.Module):
                setattr(model, name, None)
        if pooling == "pooler" and getattr(model, "pooler", None) is None:
            raise ValueError(
                f"The model of the type {config.model_type!r} has no pooler: leave `encoder_pooling` at 'mean'."
            )
        self.model = model
        self.norm = nn.LayerNorm(encoder_embedding_size(config, pooling), elementwise_affine=False)
        takes = inspect.signature(type(model).forward).parameters
        self.input_name = next((name for name in ("pixel_values", "pixel_values_videos") if name in takes), "")
        if not self.input_name:
            raise ValueError(
                f"The model of the type {config.model_type!r} takes in no videos: give a video model, {EXAMPLES}."
            )
        self.options = {"skip_predictor": True} if "skip_predictor" in takes else {}

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode clips; (B, T, C, H, W) -> (B, D)."""
        _, frames, channels, height, width = pixel_values.shape
        expected = EncoderClip(frames, height, channels)
        if expected != self.clip or height != width:
            raise ValueError(
                f"The encoder ({self.model.config.model_type}) takes in clips of {self.clip.num_frames} frames x "
                f"{self.clip.num_channels} channels x {self.clip.image_size} x {self.clip.image_size} pixels, got "
                f"{tuple(pixel_values.shape[1:])}; make them by `EchoMENVideoProcessor.for_model(model.config)`."
            )
        output = self.model(**{self.input_name: pixel_values.to(self.model.dtype)}, **self.options)
        if self.pooling == "pooler":
            vector = output.pooler_output
        else:
            tokens = output.last_hidden_state  # (B, L, D)
            vector = tokens.mean(dim=1, dtype=torch.promote_types(tokens.dtype, torch.float32))
        return self.norm(vector.to(torch.promote_types(vector.dtype, torch.float32)))


class NoEncoder(nn.Module):
    """Takes the place of the encoder in a model that was trained on vectors alone."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Refuse clips."""
        raise ValueError(
            "This model has no encoder: it was trained on vectors, and takes `embedding` instead of `pixel_values`. "
            "For videos, train it with `--model` or `--encoder`, which made the vectors."
        )


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int) -> None:
    """Refuse what are no normalised clips of shape (B, T, `num_channels`, H, W)."""
    if pixel_values.ndim != 5 or pixel_values.shape[2] != num_channels:
        raise ValueError(
            f"`pixel_values` must have shape (batch, frames, {num_channels}, height, width), got "
            f"{tuple(pixel_values.shape)}."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"`pixel_values` must be normalised floating point numbers, got {pixel_values.dtype}; "
            "pass raw frames through the video processor first."
        )


def load_video_model(name_or_path: str | Path) -> PreTrainedModel:
    """Load a pre-trained video model, a folder or an id on the Hub."""
    folder = Path(name_or_path)
    config_dict, _ = PreTrainedConfig.get_config_dict(name_or_path)
    config = as_encoder_config(config_dict)
    encoder_clip(config)  # before gigabytes are loaded
    model_class: Any = PACKAGE_ENCODERS.get(config.model_type, lambda: AutoModel)()
    model, report = model_class.from_pretrained(name_or_path, output_loading_info=True)
    # transformers fills what is missing with random numbers and only warns; poolers are often missing.
    missing = sorted(key for key in report["missing_keys"] if "pooler." not in key)
    if missing:
        raise ValueError(
            f"The weights in {folder.name if folder.is_dir() else name_or_path} do not fit its config.json: "
            f"{len(missing)} tensors are missing, such as {missing[0]}."
        )
    return model


def origin_of_weights(name_or_path: str | Path) -> dict[str, str | None]:
    """Name pre-trained weights and their licence, as far as their model card is at hand, as configuration fields."""
    folder = Path(name_or_path)
    try:
        data = ModelCard.load(folder / "README.md" if folder.is_dir() else str(name_or_path)).data
        declared = getattr(data, "license_name", None) or getattr(data, "license", None)
    except (OSError, ValueError):  # without a card, or without a network
        declared = None
    # The folders above may have names of people.
    name = folder.resolve().name if folder.is_dir() else str(name_or_path)
    return {"encoder_name_or_path": name, "encoder_license": None if declared is None else str(declared)}


def pixel_scale(name_or_path: str | Path, clip: EncoderClip) -> tuple[list[float], list[float]]:
    """Find the mean and standard deviation on the 0-255 scale that a model's own processor normalises each channel by.

    A processor may rescale, shift and normalise in several steps; what it makes of black and of white shows them all.
    """
    processor: Any
    try:
        processor = AutoVideoProcessor.from_pretrained(name_or_path)
    except (OSError, ValueError):
        processor = AutoImageProcessor.from_pretrained(name_or_path)
    ends = []
    for value in (0, 255):
        frames = np.full((clip.num_frames, clip.image_size, clip.image_size, 3), value, dtype=np.uint8)
        output = processor(list(frames), return_tensors="pt")
        made = next(output[name] for name in ("pixel_values", "pixel_values_videos") if name in output)
        if tuple(made.shape[-2:]) != (clip.image_size, clip.image_size):
            raise ValueError(
                f"The processor of {Path(name_or_path).name} makes frames of {made.shape[-2]} x {made.shape[-1]} "
                f"pixels, and its model takes in {clip.image_size} x {clip.image_size}: both files must be those that "
                "were saved together."
            )
        ends.append(made.double().flatten(0, -4).mean(dim=(0, 2, 3)))  # (..., T, C, H, W) -> (C,)
    std = 255 / (ends[1] - ends[0])
    return (-ends[0] * std).tolist(), std.tolist()


__all__ = [
    "PACKAGE_ENCODERS",
    "EncoderClip",
    "NoEncoder",
    "VideoEncoder",
    "as_encoder_config",
    "check_pixel_values",
    "encoder_clip",
    "encoder_embedding_size",
    "load_video_model",
    "origin_of_weights",
    "pixel_scale",
]
