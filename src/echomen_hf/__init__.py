"""EchoMEN: balanced ejection-fraction regression from echocardiogram video, as a Hugging Face model package."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

# Public name to the module that defines it; those that training and data sets need are imported when first used.
_PUBLIC = {
    "EchoMENConfig": "model.configuration_echomen",
    "EchoMENModel": "model.modeling_echomen",
    "EchoMENOutput": "model.modeling_echomen",
    "EchoMENTrainer": "training",
    "EchoMENTrainingArguments": "training",
    "EchoMENVideoProcessor": "model.video_processing_echomen",
    "EjectionFractionPipeline": "model.pipeline_echomen",
    "Predictor": "inference",
    "load_echonet_dynamic": "data",
    "VideoReadError": "model.video_source_echomen",
    "load_small": "checkpoints",
    "probe_video": "model.video_reading_echomen",
    "read_video": "model.video_reading_echomen",
}

__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from .checkpoints import load_small as load_small
    from .data import load_echonet_dynamic as load_echonet_dynamic
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


def _register_auto_classes() -> None:
    """Teach transformers the model type `echomen` and the task `ejection-fraction`."""
    from transformers import AutoConfig, AutoModelForVideoClassification, AutoVideoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .inference.auto_model import AutoModel
    from .model.configuration_echomen import EchoMENConfig
    from .model.modeling_echomen import EchoMENModel
    from .model.pipeline_echomen import EjectionFractionPipeline
    from .model.video_processing_echomen import EchoMENVideoProcessor

    AutoConfig.register("echomen", EchoMENConfig, exist_ok=True)
    AutoModel.register(EchoMENConfig, EchoMENModel, exist_ok=True)
    AutoModelForVideoClassification.register(EchoMENConfig, EchoMENModel, exist_ok=True)
    AutoVideoProcessor.register(EchoMENConfig, EchoMENVideoProcessor, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        "ejection-fraction", pipeline_class=EjectionFractionPipeline, pt_model=AutoModel, type="video"
    )
    EchoMENConfig.register_for_auto_class()
    EchoMENModel.register_for_auto_class("AutoModel")
    EchoMENVideoProcessor.register_for_auto_class("AutoVideoProcessor")
    EchoMENModel.publisher = _publish


def _publish(model: EchoMENModel, repo_id: str, **options: Any) -> str:
    """Publish a model with everything that its run left behind; what that takes is imported only now."""
    from .hub import push_model

    return push_model(model, repo_id, **options)


_register_auto_classes()
