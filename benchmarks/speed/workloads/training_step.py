"""A training step of the encoder: torchvision's network in single precision, against this package's switches."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.speed.workload import Workload
from benchmarks.speed.workloads.inference import load_clips, require_support, torchvision_encoder
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.training.bf16_probe import guarded_against_bf16


__all__ = ["EchoMENStep", "TorchvisionStep"]

LEARNING_RATE = 1e-4


class Step(Workload):
    """Forward pass, squared error, backward pass and optimiser step on one batch."""

    network: nn.Module

    def __init__(self, model: str, clips: str, batch_size: int = 4) -> None:
        self.model, _ = load_checkpoint(model)
        loaded = load_clips(clips)
        self.batch = loaded[torch.arange(batch_size) % len(loaded)].contiguous()
        self.labels = torch.linspace(35, 65, batch_size)
        self.losses: list[float] = []
        self.first_gradients: NDArray[np.floating] = np.empty(0)

    def start(self, network: nn.Module) -> None:
        """Set up the training of a network."""
        self.network = network.train()
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9, weight_decay=1e-4)

    def predict(self) -> torch.Tensor:
        """Predict the batch, in training mode."""
        raise NotImplementedError

    def run(self) -> float:
        """Do one step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.predict().float() - self.labels).square().mean()
        loss.backward()
        if not self.losses:
            self.first_gradients = self.gradients()
        self.optimizer.step()
        self.losses.append(loss.item())
        return len(self.batch)

    def gradients(self) -> NDArray[np.floating]:
        """Gradient norm of every filter of the temporal convolutions, which bfloat16 may compute wrongly."""
        convolutions = [module for module in self.network.modules() if isinstance(module, nn.Conv3d)]
        temporal = [conv.weight.grad for conv in convolutions if conv.kernel_size == (3, 1, 1)]
        return torch.cat([grad.double().flatten(1).norm(dim=1) for grad in temporal if grad is not None]).numpy()

    def values(self) -> NDArray[np.floating]:
        """Root of the loss of the first step in EF points, and its gradients, before rounding adds up.

        All are NaN if a later loss is not finite.
        """
        values = np.concatenate([np.sqrt(self.losses[:1]), self.first_gradients])
        return values if np.isfinite(self.losses).all() else np.full_like(values, np.nan)

    def notes(self) -> dict[str, Any]:
        """Losses of all steps."""
        return {"losses": self.losses}


class TorchvisionStep(Step):
    """torchvision's `r2plus1d_18` with a linear head, in single precision."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        network: Any = torchvision_encoder(self.model.encoder)
        network.fc = self.model.regression_head
        self.start(network)

    def predict(self) -> torch.Tensor:
        """Predict the batch with torchvision's network."""
        return self.network(self.batch.transpose(1, 2)).squeeze(-1)  # (B, T, C, H, W) -> (B, C, T, H, W)


class EchoMENStep(Step):
    """The model of this package with the switches of its trainer."""

    def __init__(self, bf16: bool, channels_last: bool, **options: Any) -> None:
        super().__init__(**options)
        self.bf16 = bf16
        if channels_last:
            self.model.to(memory_format=torch.channels_last_3d)
        # Kept for the life of this object, as the trainer does for that of a training.
        self._guard, self.computed_in_fp32 = ExitStack(), list[str]()
        if bf16:
            require_support("bf16")
            self.computed_in_fp32 = self._guard.enter_context(guarded_against_bf16(self.model))
        for part in (self.model.projector, self.model.experts, self.model.aggregator):
            part.requires_grad_(False)
        self.start(self.model)

    def predict(self) -> torch.Tensor:
        """Predict the batch with the regression head."""
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext():
            return self.network(pixel_values=self.batch).regression

    def notes(self) -> dict[str, Any]:
        """Losses, and the layers that this processor computes wrongly in bfloat16."""
        return {**super().notes(), "computed_in_fp32": self.computed_in_fp32}
