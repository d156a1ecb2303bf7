"""DDIR, deep imbalanced regression (Yang et al., ICML 2021): smoothed label frequencies and smoothed features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...losses import reweighted_regression_loss
from ...model.configuration_echomen import EchoMENConfig
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import gather_with_gradient
from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .fds import FeatureStatistics
from .lds import gaussian_kernel, lds_weights


__all__ = ["DDIR", "DDIRLoss", "DDIRModel"]


class DDIRModel(EchoMENModel):
    """An EchoMEN model with statistics of its features, while it is trained."""

    # Only for checkpoints of a training, whose result is a plain model without the statistics.
    _auto_class = None
    _keep_in_fp32_modules_strict = [*(EchoMENModel._keep_in_fp32_modules_strict or []), "feature_statistics"]

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__(config)
        self.feature_statistics = FeatureStatistics(config.embedding_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, FeatureStatistics):
            module.reset()
        else:
            super()._init_weights(module)


class DDIRLoss(MethodLoss):
    """Mean squared error with smoothed inverse-frequency weights, on smoothed features.

    Args:
        lds_kernel_size: Bins that the kernel over the labels covers.
        lds_sigma: Its standard deviation in bins.
        fds_kernel_size: Bins that the kernel over the features' statistics covers.
        fds_sigma: Its standard deviation in bins.
        fds_momentum: Share of earlier epochs in the running statistics.
        fds_start_update: First epoch, from 0, whose features count.
        fds_start_smooth: First epoch, from 0, whose features are smoothed.
    """

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        lds_kernel_size: int = 5,
        lds_sigma: float = 2.0,
        fds_kernel_size: int = 5,
        fds_sigma: float = 2.0,
        fds_momentum: float = 0.9,
        fds_start_update: int = 0,
        fds_start_smooth: int = 1,
    ) -> None:
        super().__init__(train_labels)
        self.weights = lds_weights(train_labels, lds_kernel_size, lds_sigma)
        gaussian_kernel(fds_kernel_size, fds_sigma)  # raises now and not after the first epoch
        if not 0 <= fds_momentum < 1:
            raise ValueError(f"`fds_momentum` must be at least 0 and below 1, got {fds_momentum}.")
        self.fds_kernel_size = fds_kernel_size
        self.fds_sigma = fds_sigma
        self.fds_momentum = fds_momentum
        self.fds_start_update = fds_start_update
        self.fds_start_smooth = fds_start_smooth

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; the features of all processes join the statistics."""
        statistics: FeatureStatistics = model.get_submodule("feature_statistics")
        smoothed = statistics.smooth(outputs.embedding, labels, self.fds_start_smooth)
        with torch.autocast(smoothed.device.type, enabled=False):
            predictions = model.regression_head(smoothed.to(model.regression_head.weight.dtype))  # (B, 1)
        statistics.observe(*gather_with_gradient(outputs.embedding.detach(), labels))
        regression = reweighted_regression_loss(predictions, labels, self.weights(labels))
        return regression, {"loss_regression": regression}

    def end_epoch(self, model: EchoMENModel) -> None:
        """Update and smooth the statistics."""
        statistics: FeatureStatistics = model.get_submodule("feature_statistics")
        statistics.end_epoch(self.fds_momentum, self.fds_kernel_size, self.fds_sigma, self.fds_start_update)


DDIR = Method(
    name="ddir",
    title="DDIR",
    source="Yang et al., Delving into deep imbalanced regression, ICML 2021: LDS on square-root counts, and FDS whose "
    "statistics are gathered while an epoch trains; label bins without a sample take no part in smoothing.",
    group="rival",
    loss=DDIRLoss,
    model_class=DDIRModel,
)
