"""Loading of a model and its video processor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor, as_size
from .engines.export_folder import is_export, load_export


__all__ = ["load_checkpoint", "load_checkpoint_of", "read_model_type"]


Model = TypeVar("Model", bound=PreTrainedModel)


def load_checkpoint(
    model: str | Path, *, exports: bool = False, headless: bool = False
) -> tuple[EchoMENModel, EchoMENVideoProcessor]:
    """Load an EchoMEN model in evaluation mode, and the video processor stored beside it.

    Args:
        model: Folder, or id on the Hub.
        exports: Whether it may be a folder that `echomen export` wrote; the model's encoder is then the exported one,
            which can be run but neither trained nor published.
        headless: Whether it may be an encoder without a trained head, with which stage 1 starts.

    Returns:
        Model and video processor.

    Raises:
        FileNotFoundError: If a folder is named that does not exist.
        ValueError: If a folder holds no model, another kind of model, or weights or a video processor that do not fit
            its configuration, or a model that cannot give an ejection fraction yet.
        OSError: If something is missing, or the Hub cannot be reached.
    """
    if is_export(model):
        if not exports:
            raise ValueError(
                f"{model} holds an exported model, which `Predictor` and `echomen evaluate` run; for anything else "
                "give the folder of the trained model that it was made from."
            )
        return load_export(model)[:2]
    loaded, processor = load_checkpoint_of(model, EchoMENModel, EchoMENVideoProcessor)
    if loaded.config.prediction_head is None and not headless:
        raise ValueError(
            f"{model} holds an encoder whose head for the ejection fraction is not trained yet: train both stages, "
            f"starting from it, by `echomen train --model {model}`."
        )
    return loaded, processor


def load_checkpoint_of(
    model: str | Path, model_class: type[Model], processor_class: type[EchoMENVideoProcessor]
) -> tuple[Model, EchoMENVideoProcessor]:
    """Load a model of a class and its video processor, see `load_checkpoint`."""
    folder = Path(model)
    if folder.is_dir():
        check_folder(folder, model_class.config_class.model_type)
    elif folder.is_absolute() or str(model).count("/") != 1 or str(model).startswith((".", "~", os.sep)):
        raise FileNotFoundError(f"There is no model folder {model}, and that is no id on the Hub (owner/name) either.")
    try:
        loaded, report = model_class.from_pretrained(model, output_loading_info=True)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights in {model} are damaged or do not fit its config.json, which must be the one that was saved "
            f"with them: {reason[:300]}"
        ) from error
    # transformers fills what is missing with random numbers and only warns.
    strange = sorted({str(key) for kind in ("missing_keys", "unexpected_keys") for key in report[kind]})
    if strange:
        raise ValueError(
            f"The weights in {model} do not fit its config.json, which must be the one that was saved with them: "
            f"{len(strange)} entries are missing or unknown, such as {', '.join(strange[:3])}."
        )
    processor = processor_class.from_pretrained(model)
    config, size = loaded.config, as_size(processor.crop_size)
    made = (processor.num_frames, processor.num_channels, size.height, size.width)
    expected = (config.num_frames, config.num_channels, config.image_size, config.image_size)
    if made != expected:
        raise ValueError(
            f"The video processor in {model} makes clips of (frames, channels, height, width) {made}, but the model "
            f"was trained on {expected}; both files must be those that were saved together."
        )
    return loaded.eval(), processor


def check_folder(folder: Path, expected_type: str) -> None:
    """Refuse a folder that is not a saved model."""
    model_type = read_model_type(folder)
    if model_type != expected_type:
        raise ValueError(f"{folder} holds a model of type {model_type!r} and not {expected_type!r}.")
    if not any((folder / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        raise ValueError(
            f"{folder} holds a configuration but no weights ({SAFE_WEIGHTS_NAME} is missing); copy the folder again."
        )


def read_model_type(folder: Path) -> str | None:
    """Read what kind of model a folder holds."""
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no model: config.json is missing. Give the folder that training wrote its result to."
        ) from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object: {error}") from error
