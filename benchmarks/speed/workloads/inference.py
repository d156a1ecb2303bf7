"""Inference: torchvision's network, against the engines of this package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.speed.workload import Unavailable, Workload
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.inference.engines.engine import Engine
from echomen_hf.inference.engines.factory import make_engine
from echomen_hf.inference.engines.optional_packages import MissingExtraError
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.r2plus1d_echomen import R2Plus1DEncoder
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor


__all__ = [
    "EngineInference",
    "QuantisedInference",
    "TorchvisionInference",
    "load_clips",
    "require_support",
    "torchvision_encoder",
]


class Inference(Workload):
    """Encodes one batch of clips repeatedly."""

    def __init__(
        self,
        model: str,
        clips: str,
        batch_size: int = 1,
        num_compared: int | None = None,
        trained: str | None = None,
        trained_clips: str | None = None,
    ) -> None:
        self.model, self.processor = load_checkpoint(model)
        self.clips = load_clips(clips)
        self.batch = self.clips[torch.arange(batch_size) % len(self.clips)].contiguous()
        self.num_compared = num_compared
        self.trained, self.trained_clips = trained, trained_clips

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips with the full-size network."""
        raise NotImplementedError

    def encode_trained(
        self, model: EchoMENModel, processor: EchoMENVideoProcessor, clips: torch.Tensor
    ) -> torch.Tensor:
        """Encode clips with the trained network."""
        raise NotImplementedError

    def run(self) -> float:
        """Encode the batch and predict."""
        with torch.inference_mode():
            self.model(embedding=self.encode(self.batch))
        return len(self.batch)

    @torch.inference_mode()
    def values(self) -> NDArray[np.floating]:
        """Ejection fractions in percent of the full-size network's clips, then of the trained one's."""
        compared = self.clips[: self.num_compared].split(1)
        predicted = [self.model(embedding=self.encode(clip)).ejection_fraction for clip in compared]
        if self.trained is not None and self.trained_clips is not None:
            model, processor = load_checkpoint(self.trained)
            embedding = self.encode_trained(model, processor, load_clips(self.trained_clips))
            predicted.append(model(embedding=embedding).ejection_fraction)
        return torch.cat(predicted).double().numpy()


class TorchvisionInference(Inference):
    """torchvision's `r2plus1d_18` in single precision. The trained checkpoint is its own reference."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.encoder = torchvision_encoder(self.model.encoder).eval()

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips with torchvision's network."""
        return self.encoder(clips.transpose(1, 2))  # (B, T, C, H, W) -> (B, C, T, H, W)

    def encode_trained(
        self, model: EchoMENModel, processor: EchoMENVideoProcessor, clips: torch.Tensor
    ) -> torch.Tensor:
        """Encode clips with the model itself, since torchvision has no network of this size."""
        return model.encoder(clips)


class EngineInference(Inference):
    """An engine of this package."""

    def __init__(self, engine: str, precision: str, **options: Any) -> None:
        super().__init__(**options)
        self.engine_name, self.precision = engine, precision
        require_support(precision)
        self.engine = self.make(self.model, self.processor)

    def make(self, model: EchoMENModel, processor: EchoMENVideoProcessor) -> Engine:
        """Make the engine of a model."""
        try:
            return make_engine(
                model, self.engine_name, self.precision, processor=processor, batch_size=len(self.batch)
            )
        except ValueError as error:
            raise Unavailable(str(error)) from error

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips with the engine."""
        return self.engine(clips)

    def encode_trained(
        self, model: EchoMENModel, processor: EchoMENVideoProcessor, clips: torch.Tensor
    ) -> torch.Tensor:
        """Encode clips with an engine of the trained model."""
        return self.make(model, processor)(clips)

    def notes(self) -> dict[str, Any]:
        """Engine and precision."""
        return {"engine": self.engine.name, "precision": self.engine.precision}


class QuantisedInference(Inference):
    """OpenVINO with 8-bit integers where they do not change the ejection fraction much, bfloat16 elsewhere.

    The trained checkpoint is exported as `scripts/export.py` does it. The full-size network, whose random weights are
    not right about anything, goes through the same search of layers with its own predictions in single precision as
    the truth.
    """

    @torch.no_grad()
    def __init__(self, data_dir: str, max_change: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        from echomen_hf.inference.engines.encoder_graph import ClipShape, trace_encoder
        from echomen_hf.inference.engines.openvino_engine import OpenVINOEngine, convert_to_openvino
        from echomen_hf.inference.export.measured_error import ejection_fraction_heads
        from echomen_hf.inference.export.quantisation import quantise

        self.data_dir = data_dir
        clips = [clip.numpy() for clip in self.clips.split(1)]
        heads = ejection_fraction_heads(self.model)
        try:
            graph = convert_to_openvino(trace_encoder(self.model))
            calibration, watched = clips[: len(clips) // 2], clips[len(clips) // 2 :]
            references = self.model(pixel_values=self.clips[len(calibration) :]).ejection_fraction.tolist()
            found = quantise(graph, calibration, watched, references, heads, max_change)
        except MissingExtraError as error:
            raise Unavailable(str(error)) from error
        self.int8_layers, self.float_layers = found.int8_layers, found.float_layers
        self.engine = OpenVINOEngine(found.graph, ClipShape.of(self.model.config), "int8")
        self.record: dict[str, Any] = {}

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Encode clips with the quantised graph."""
        return self.engine(clips)

    def encode_trained(
        self, model: EchoMENModel, processor: EchoMENVideoProcessor, clips: torch.Tensor
    ) -> torch.Tensor:
        """Export the trained checkpoint, and encode clips with it."""
        from echomen_hf.inference.export.exporting import export_model, load_export

        assert self.trained is not None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "export"
            self.record = export_model(
                self.trained, target, precision="int8", data_dir=self.data_dir, protocol="center", progress=False
            )
            _, _, engine = load_export(target)
            return engine(clips)

    def notes(self) -> dict[str, Any]:
        """Precision of the layers of both networks."""
        quantisation = self.record.get("quantisation") or {}
        return {
            "engine": "openvino",
            "precision": "int8",
            "int8_layers": list(self.int8_layers),
            "bf16_layers": list(self.float_layers),
            "trained_int8_layers": quantisation.get("int8_layers"),
            "trained_bf16_layers": quantisation.get("bf16_layers"),
        }


def torchvision_encoder(encoder: R2Plus1DEncoder) -> nn.Module:
    """Torchvision's network with the weights of an encoder."""
    from torchvision.models.video import r2plus1d_18

    network = r2plus1d_18(weights=None)
    network.fc = nn.Identity()
    network.load_state_dict(encoder.state_dict())
    return network


def load_clips(path: str) -> torch.Tensor:
    """Clips of a file, shape (N, T, C, H, W)."""
    return torch.from_numpy(np.load(path, allow_pickle=False))


def require_support(precision: str) -> None:
    """Raise `Unavailable` for a precision that the processor only emulates."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 cannot tell
    if precision == "bf16" and capabilities.get("architecture") == "x86_64" and not capabilities["avx512_bf16"]:
        raise Unavailable("this processor has no instructions for bfloat16")
