"""Loading of models that any method has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..inference.checkpoint import load_checkpoint, load_checkpoint_of, read_model_type
from ..model.configuration_echomen import EchoMENConfig
from ..model.video_processing_echomen import EchoMENVideoProcessor
from .registry import get_method, list_methods


__all__ = ["load_method_checkpoint"]


def load_method_checkpoint(folder: str | Path) -> tuple[PreTrainedModel, EchoMENVideoProcessor]:
    """Load the result of `fit_method`, in evaluation mode, and the video processor stored beside it.

    Both are what `predict_split` and `Predictor` take in.

    Args:
        folder: Folder of the run.

    Returns:
        Model and video processor.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no model, one that no method makes, or one whose files do not fit each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no model folder {folder}.")
    model_type = read_model_type(folder)
    if model_type == EchoMENConfig.model_type:
        # Also a loss-side rival, which training leaves as a plain EchoMENModel.
        return load_checkpoint(folder)
    for method in map(get_method, list_methods()):
        model_class: Any = method.model_class
        if model_class.config_class.model_type == model_type:
            return load_checkpoint_of(folder, model_class, method.processor_class)
    raise ValueError(
        f"{folder} holds a model of type {model_type!r}, which no method makes; give the folder that `fit_method` "
        "wrote its result to."
    )
