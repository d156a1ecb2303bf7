"""SRL, surrogate-driven representation learning (Dong et al., CVPR 2025): a smooth trace that fills the sphere."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import initialization as init

from ...labels import label_bins, num_label_bins
from ...losses import squared_error
from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = [
    "SRL",
    "SRLLoss",
    "SRLModel",
    "Surrogates",
    "enveloping_loss",
    "fill_gaps",
    "homogeneity_loss",
    "surrogate_contrast",
]

BIN_WIDTH = 1.0
"""EF points per surrogate: 100 bins, whose number is part of the model's shape."""


def enveloping_loss(surrogates: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Minus the mean over points of the sphere, (N, P), of the largest cosine to any surrogate, (B, P)."""
    return -(points @ surrogates.T).amax(dim=1).mean()


def homogeneity_loss(surrogates: torch.Tensor, step: float = BIN_WIDTH) -> torch.Tensor:
    """Sum over neighbours of the squared distance of their surrogates, divided by the squared step of the labels."""
    return (surrogates[1:] - surrogates[:-1]).square().sum() / step**2


def surrogate_contrast(
    features: torch.Tensor, surrogates: torch.Tensor, positions: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy of the cosines to all surrogates, over the temperature, against that of the sample's own bin."""
    return F.cross_entropy(features @ surrogates.T / temperature, positions)


def fill_gaps(surrogates: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give every bin between the lowest and the highest seen one a surrogate, by linear interpolation.

    Returns unit vectors, one per bin from the lowest seen one on, and the index of that bin.
    """
    known = seen.nonzero().flatten()
    bins = torch.arange(int(known[0]), int(known[-1]) + 1, device=known.device)
    above = torch.searchsorted(known, bins)
    below = above - (known[above] != bins).to(above.dtype)
    lower, upper = known[below], known[above]
    share = ((bins - lower) / (upper - lower).clamp(min=1))[:, None].to(surrogates.dtype)
    return F.normalize(surrogates[lower].lerp(surrogates[upper], share), dim=-1), known[0]


class Surrogates(nn.Module):
    """Running means of the projections of every label bin, of unit length, as buffers that are saved with a model."""

    vectors: torch.Tensor
    seen: torch.Tensor

    def __init__(self, projection_size: int) -> None:
        super().__init__()
        count = num_label_bins(BIN_WIDTH)
        self.register_buffer("vectors", torch.zeros(count, projection_size))
        self.register_buffer("seen", torch.zeros(count, dtype=torch.bool))

    def with_batch(self, features: torch.Tensor, bins: torch.Tensor, momentum: float) -> torch.Tensor:
        """Add a batch of unit vectors, (N, P), to the running means.

        Returns the surrogates, (B, P), in which the bins of the batch have its means, which carry gradients.
        """
        membership = F.one_hot(bins, len(self.seen)).T.to(features.dtype)  # (B, N)
        found = membership.sum(dim=1) > 0
        means = F.normalize(membership @ features, dim=-1)
        with torch.no_grad():
            kept = torch.where(found & self.seen, momentum, (~found).to(features.dtype))[:, None]
            self.vectors.copy_(F.normalize(kept * self.vectors + (1 - kept) * means, dim=-1))
            self.seen |= found
        return torch.where(found[:, None], means, self.vectors.to(means.dtype))


class SRLModel(EchoMENModel):
    """An EchoMEN model with surrogates of the label bins, while it is trained."""

    # Only for checkpoints of a training, whose result is a plain model without the surrogates.
    _auto_class = None
    _keep_in_fp32_modules_strict = [*(EchoMENModel._keep_in_fp32_modules_strict or []), "surrogates"]

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__(config)
        self.surrogates = Surrogates(config.projection_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Surrogates):
            init.zeros_(module.vectors)
            init.zeros_(module.seen)
        else:
            super()._init_weights(module)


class SRLLoss(MethodLoss):
    """Mean squared error plus contrast to the surrogates and their enveloping and homogeneity.

    Args:
        contrast_weight: Factor on the contrast to the surrogates.
        enveloping_weight: Factor on the enveloping loss.
        homogeneity_weight: Factor on the homogeneity loss.
        temperature: Temperature of the contrast.
        num_points: Random points of the sphere, always the same.
        momentum: Share of earlier batches in a surrogate.
    """

    uses_projection = True

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        contrast_weight: float = 10.0,
        enveloping_weight: float = 100.0,
        homogeneity_weight: float = 0.01,
        temperature: float = 0.3,
        num_points: int = 2000,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(train_labels)
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive, got {temperature}.")
        if num_points < 1:
            raise ValueError(f"`num_points` must be at least 1, got {num_points}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be at least 0 and below 1, got {momentum}.")
        self.weights = {
            "loss_contrast": contrast_weight,
            "loss_enveloping": enveloping_weight,
            "loss_homogeneity": homogeneity_weight,
        }
        self.temperature = temperature
        self.num_points = num_points
        self.momentum = momentum
        self._points: torch.Tensor | None = None

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; samples of all processes join the surrogates."""
        surrogates: Surrogates = model.get_submodule("surrogates")

        def constrain(projections: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            bins = label_bins(labels, BIN_WIDTH)
            projections = projections.to(torch.promote_types(projections.dtype, torch.float32))
            with torch.autocast(labels.device.type, enabled=False):
                of_batch, _ = fill_gaps(
                    surrogates.with_batch(projections, bins, self.momentum), surrogates.seen
                )  # (bins, P)
                stored, first = fill_gaps(surrogates.vectors.to(projections.dtype), surrogates.seen)
                contrast = surrogate_contrast(projections, stored, bins - first, self.temperature)
                enveloping = enveloping_loss(of_batch, self.points(projections))
                return torch.stack([contrast, enveloping, homogeneity_loss(of_batch)])

        regression = squared_error(outputs.regression, labels)
        terms = dict(zip(self.weights, loss_of_all_processes(constrain, outputs.projection, labels)))
        loss = regression + sum(self.weights[name] * term for name, term in terms.items())
        return loss, {"loss_regression": regression, **terms}

    def points(self, like: torch.Tensor) -> torch.Tensor:
        """Draw the fixed points of the sphere, (N, P), of the size, type and device of projections."""
        if self._points is None:
            drawn = torch.randn(self.num_points, like.shape[1], generator=torch.Generator().manual_seed(0))
            self._points = F.normalize(drawn, dim=-1)
        self._points = self._points.to(like.device, like.dtype)
        return self._points


SRL = Method(
    name="srl",
    title="SRL",
    source="Dong et al., Improve representation for imbalanced regression through geometric constraints, CVPR 2025: "
    "temperature 0.3, 2,000 points, weights 10, 100 and 0.01 as in the authors' code for ages. Surrogates of 1-point "
    "bins are updated with every batch; enveloping and homogeneity see the means of the batch in its own bins and "
    "interpolate bins without a sample; all on the projection, since the pooled features are not negative and fill "
    "only a part of the sphere.",
    group="newer",
    loss=SRLLoss,
    model_class=SRLModel,
)
