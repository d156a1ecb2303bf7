"""`AutoModel` of pipelines, which also loads exports."""

from __future__ import annotations

import os
from typing import Any

import transformers
from transformers import PreTrainedModel


__all__ = ["AutoModel"]


# Pipelines are saved with this class by its name, under which others find transformers' own.
class AutoModel(transformers.AutoModel):
    """`transformers.AutoModel` that also loads the folders of `echomen export`."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> PreTrainedModel:
        """Load a model; an export runs in its own engine, and brings its device and precision."""
        from .engines.export_folder import is_export, load_export

        if is_export(pretrained_model_name_or_path):
            return load_export(pretrained_model_name_or_path)[0]
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
