"""The outline of the left ventricle in every frame of a video."""

from __future__ import annotations

from .outliner import LeftVentricleOutliner, LeftVentricleOutlinerConfig


__all__ = ["LeftVentricleOutliner", "LeftVentricleOutlinerConfig", "load_outliner"]


def load_outliner() -> LeftVentricleOutliner:
    """Load the outliner that comes with the package, trained on simulated hearts only.

    docs/outline.md says how it was trained and how well it does.

    Returns:
        The model, in evaluation mode.
    """
    from ..checkpoints import OUTLINE_FOLDER

    return LeftVentricleOutliner.from_pretrained(OUTLINE_FOLDER).eval()
