"""Registration of EchoMEN with the Auto classes and pipelines of transformers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .model.echo_video_echomen import EchoVideo
    from .model.modeling_echomen import EchoMENModel


__all__ = ["register_with_transformers"]


def register_with_transformers() -> None:
    """Register now if transformers is imported already, else as soon as something imports it."""
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _RegistersAfterImport())


class _RegistersAfterImport(threading.local):
    """Finder that registers once transformers is imported.

    It waits for the end of the outermost import of transformers or of a module of this package: before that, modules
    that the registration needs may be half imported.
    """

    depth = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "transformers" and not name.startswith("echomen_hf."):
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    then = partial(self.exec_module, spec.loader.exec_module)
                    spec.loader.exec_module = then  # type: ignore[method-assign]
                return spec
        return None

    def exec_module(self, exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
        self.depth += 1
        try:
            exec_module(module)
        finally:
            self.depth -= 1
        if self.depth == 0 and "transformers" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            _register()


def _register() -> None:
    """Teach transformers the model types of the package and the task `ejection-fraction`."""
    from transformers import AutoConfig, AutoModelForVideoClassification, AutoVideoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .inference.auto_model import AutoModel
    from .model.configuration_echomen import EchoMENConfig
    from .model.modeling_echomen import EchoMENModel
    from .model.pipeline_echomen import EjectionFractionPipeline
    from .model.video_encoder_echomen import PACKAGE_ENCODERS
    from .model.video_processing_echomen import EchoMENVideoProcessor
    from .outline.outliner import LeftVentricleOutliner, LeftVentricleOutlinerConfig

    AutoConfig.register("echomen", EchoMENConfig, exist_ok=True)
    AutoConfig.register("echomen_outline", LeftVentricleOutlinerConfig, exist_ok=True)
    AutoModel.register(LeftVentricleOutlinerConfig, LeftVentricleOutliner, exist_ok=True)
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
    EjectionFractionPipeline.shows_other_view = _shows_other_view
    PACKAGE_ENCODERS.update(echo_uniformer=_uniformer_encoder, uvt=_uvt_encoder)


def _uniformer_encoder() -> type[PreTrainedModel]:
    from .methods.networks.echocotr import UniFormerEncoder  # imports the training, which most do not need

    return UniFormerEncoder


def _uvt_encoder() -> type[PreTrainedModel]:
    from .methods.networks.uvt import UVTEncoder

    return UVTEncoder


def _publish(model: EchoMENModel, repo_id: str, **options: Any) -> str:
    """Publish a model with everything that its run left behind."""
    from .hub import push_model  # only publishing needs it

    return push_model(model, repo_id, **options)


def _shows_other_view(video: EchoVideo) -> bool:
    """Tell by a few outlines whether a video shows something else than an apical view of the left ventricle."""
    from .outline import shows_other_view  # with scipy.ndimage, which takes half a second

    return shows_other_view(video)
