"""EchoMEN: balanced ejection-fraction regression from echocardiogram video, as a Hugging Face model package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .moved_modules import alias_moved_modules
from .registration import register_with_transformers


__version__ = "0.2.0"

# Public name to the module that defines it, which is imported when the name is first used.
_PUBLIC = {
    "EchoMENConfig": "model.configuration_echomen",
    "EchoMENModel": "model.modeling_echomen",
    "EchoMENOutput": "model.modeling_echomen",
    "EchoMENTrainer": "training",
    "EchoMENTrainingArguments": "training",
    "EchoMENVideoProcessor": "model.video_processing_echomen",
    "EjectionFractionPipeline": "model.pipeline_echomen",
    "Predictor": "inference",
    "VideoReadError": "model.video_source_echomen",
    "load_echonet_dynamic": "data",
    "load_small": "checkpoints",
    "load_videos": "data",
    "probe_video": "model.video_reading_echomen",
    "read_video": "model.video_reading_echomen",
}

__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from .checkpoints import load_small as load_small
    from .data import load_echonet_dynamic as load_echonet_dynamic
    from .data import load_videos as load_videos
    from .inference import Predictor as Predictor
    from .model.configuration_echomen import EchoMENConfig as EchoMENConfig
    from .model.modeling_echomen import EchoMENModel as EchoMENModel
    from .model.modeling_echomen import EchoMENOutput as EchoMENOutput
    from .model.pipeline_echomen import EjectionFractionPipeline as EjectionFractionPipeline
    from .model.video_processing_echomen import EchoMENVideoProcessor as EchoMENVideoProcessor
    from .model.video_reading_echomen import probe_video as probe_video
    from .model.video_reading_echomen import read_video as read_video
    from .model.video_source_echomen import VideoReadError as VideoReadError
    from .training import EchoMENTrainer as EchoMENTrainer
    from .training import EchoMENTrainingArguments as EchoMENTrainingArguments


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


register_with_transformers()
alias_moved_modules()
