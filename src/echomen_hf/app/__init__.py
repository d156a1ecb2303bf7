"""Web page that reads a clip: estimate, evidence, and where the model looked."""

from __future__ import annotations


try:
    import captum  # type: ignore[import-untyped]  # noqa: F401
    import gradio  # noqa: F401
except ImportError as error:
    raise ImportError('The web page needs gradio and captum: pip install "echomen-hf[app]".') from error

from .layout import build_app
from .limits import UploadLimits


__all__ = ["UploadLimits", "build_app"]
