"""Old paths of modules, importable until version 0.3."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


__all__ = ["MOVED_MODULES", "alias_moved_modules"]

_MODEL_FILES = (
    *("backbone_weights", "clip_sampling", "colour_doppler", "configuration", "dicom_reading", "frame_collector"),
    *("gray_conversion", "heart_failure_category", "mjpeg_avi", "modeling", "pipeline", "prediction_interval"),
    *("simplejpeg_reading", "video_processing", "video_reading", "video_source"),
)

MOVED_MODULES = {f"{name}_echomen": f"model.{name}_echomen" for name in _MODEL_FILES} | {
    "allocator": "training.allocator",
    "auto_model": "inference.auto_model",
    "command_line": "cli.command_line",
    "data.echonet_dynamic": "data.loading",
    "data.echonet_layout": "data.layouts.echonet_dynamic",
    "evaluation.protocol": "inference.video_prediction",
    "installed_versions": "runs.installed_versions",
    "label_distribution": "labels",
    "marked_section": "runs.marked_section",
    "packaged_model": "checkpoints",
    "recipes": "training.recipes",
    "training.embedding_cache": "training.embeddings",
    "training.two_stage": "training.fitting",
}
"""New module by old module, both inside the package."""


def alias_moved_modules() -> None:
    """Let the old paths be imported, with a warning that names the new one."""
    # Before the finder of paths, which would take the folder of recipes for the old module of that name.
    sys.meta_path.insert(0, _MovedModuleFinder())


class _MovedModuleFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        if package != __package__ or old not in MOVED_MODULES:
            return None
        return ModuleSpec(name, _MovedModuleLoader(f"{package}.{MOVED_MODULES[old]}"))


class _MovedModuleLoader(Loader):
    def __init__(self, new: str) -> None:
        self.new = new

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        warnings.warn(f"{old} is now {self.new}; the old path goes in version 0.3.", DeprecationWarning, stacklevel=2)
        # The same module under both names, so that there is one class of each name, and not two.
        sys.modules[old] = importlib.import_module(self.new)
