"""The models that come with the package, trained on simulated hearts only."""

from __future__ import annotations

from pathlib import Path

from ..model.modeling_echomen import EchoMENModel


__all__ = [
    "OUTLINE_FOLDER",
    "SMALL_MODEL_FOLDER",
    "SMALL_MODEL_NAME",
    "SMALL_MODEL_NOTICE",
    "is_small_model",
    "load_small",
]

SMALL_MODEL_FOLDER = Path(__file__).parent / "small"
"""Folder with configuration, weights, video processor, card and measurements, as `from_pretrained` reads it."""

OUTLINE_FOLDER = Path(__file__).parent / "outline"
"""Folder with configuration, weights, card and measurements of the outliner of the left ventricle."""

SMALL_MODEL_NAME = "echomen_hf small (trained on SIMULATED hearts only)"
"""Name of the model for users."""

SMALL_MODEL_NOTICE = (
    "The small model of echomen_hf was trained on SIMULATED hearts only: how large its errors on patients are, and "
    "how often its intervals hold, nobody knows."
)
"""Caution beside every estimate of this model."""


def load_small() -> EchoMENModel:
    """Load the small model that comes with the package.

    It is the model in `SMALL_MODEL_FOLDER`: the video processor is loaded from there, and `Predictor()` without a
    model takes both. docs/small_model.md says what it was trained on and how well it does.

    Returns:
        The model, in evaluation mode.
    """
    return EchoMENModel.from_pretrained(SMALL_MODEL_FOLDER).eval()


def is_small_model(model: str | Path) -> bool:
    """Return whether a folder is that of the small model."""
    return Path(model).resolve() == SMALL_MODEL_FOLDER.resolve()
