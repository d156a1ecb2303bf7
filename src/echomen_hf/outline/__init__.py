"""The outline of the left ventricle in every frame of a video, and the ejection fraction that follows from it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .outliner import LeftVentricleOutliner, LeftVentricleOutlinerConfig, load_outliner


# Imported when first used: transformers gets to know the outliner in every process, and most of them measure nothing.
_MEASURING = {
    "Beat": "beats",
    "VideoOutline": "video_outline",
    "draw_volumes": "overlay",
    "outline_video": "video_outline",
    "shows_other_view": "video_outline",
    "write_overlay": "overlay",
}

__all__ = ["LeftVentricleOutliner", "LeftVentricleOutlinerConfig", "load_outliner", *_MEASURING]

if TYPE_CHECKING:
    from .beats import Beat as Beat
    from .overlay import draw_volumes as draw_volumes
    from .overlay import write_overlay as write_overlay
    from .video_outline import VideoOutline as VideoOutline
    from .video_outline import outline_video as outline_video
    from .video_outline import shows_other_view as shows_other_view


def __getattr__(name: str) -> Any:
    if name not in _MEASURING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MEASURING[name]}", __name__), name)
