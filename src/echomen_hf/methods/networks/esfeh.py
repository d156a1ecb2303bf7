"""Kazemi Esfeh et al. (MICCAI 2020): R(2+1)D with a Bayesian linear head, which estimates its uncertainty too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from transformers import initialization as init
from transformers.utils.generic import maybe_autocast

from ...losses import squared_error
from ...model.modeling_echomen import EchoMENOutput, EchoMENPreTrainedModel
from ...model.r2plus1d_echomen import R2Plus1DEncoder
from ...model.video_encoder_echomen import check_pixel_values
from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer, single_prediction
from .configuration_bayesian_r2plus1d import BayesianR2Plus1DConfig


__all__ = ["BayesianR2Plus1DModel", "BayesianR2Plus1DOutput", "BayesianRegressionHead", "ESFEH", "EsfehLoss"]


@dataclass
class BayesianR2Plus1DOutput(EchoMENOutput):
    """Output of the Bayesian R(2+1)D; B clips, S samples of the weights.

    Args:
        sampled_predictions (`torch.FloatTensor` of shape `(B, S)`): Ejection fraction by every sample in percent; a
            single one of its own for every clip in training.
        uncertainty (`torch.FloatTensor` of shape `(B,)`): Standard deviation of the samples in percent.
        kl_divergence (`torch.FloatTensor` of shape `()`): Divergence of the weights' posterior from their prior in
            nats.
    """

    sampled_predictions: torch.Tensor | None = None
    uncertainty: torch.Tensor | None = None
    kl_divergence: torch.Tensor | None = None


class BayesianRegressionHead(nn.Module):
    """Linear layer with independent Gaussian weights (mean-field variational inference, Blundell et al. 2015)."""

    def __init__(self, config: BayesianR2Plus1DConfig) -> None:
        super().__init__()
        self.prior_std = config.prior_std
        self.prior_bias = config.initial_ejection_fraction
        self.weight_mean = nn.Parameter(torch.empty(config.embedding_size))
        self.weight_rho = nn.Parameter(torch.empty(config.embedding_size))
        self.bias_mean = nn.Parameter(torch.empty(()))
        self.bias_rho = nn.Parameter(torch.empty(()))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Estimate every clip with weights of its own.

        The estimate is drawn from its own distribution instead of the weights from theirs, which is the same and
        gives a gradient with less noise (local reparametrisation, Kingma et al. 2015).
        """
        mean = embedding @ self.weight_mean + self.bias_mean
        variance = embedding.square() @ F.softplus(self.weight_rho).square() + F.softplus(self.bias_rho).square()
        return mean + variance.sqrt() * torch.randn_like(mean)

    def sample(self, embedding: torch.Tensor, num_samples: int, seed: int) -> torch.Tensor:
        """Estimate all clips with the same S samples of the weights; (B, D) -> (B, S)."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(num_samples, self.weight_mean.numel() + 1, generator=generator).to(embedding)
        weights = self.weight_mean + F.softplus(self.weight_rho) * noise[:, :-1]  # (S, D)
        biases = self.bias_mean + F.softplus(self.bias_rho) * noise[:, -1]  # (S,)
        return embedding @ weights.T + biases

    def kl_divergence(self) -> torch.Tensor:
        """Compute the divergence of the posterior from the prior, N(0, s^2) and for the bias N(55.6, s^2)."""
        of_weights = gaussian_kl(self.weight_mean, F.softplus(self.weight_rho), 0.0, self.prior_std)
        of_bias = gaussian_kl(self.bias_mean, F.softplus(self.bias_rho), self.prior_bias, self.prior_std)
        return of_weights.sum() + of_bias


def gaussian_kl(
    mean: torch.Tensor, std: torch.Tensor, prior_mean: float | int, prior_std: float | int
) -> torch.Tensor:
    """Compute the divergences of Gaussians from a Gaussian prior, in nats."""
    squares = (std.square() + (mean - prior_mean).square()) / (2 * prior_std**2)
    return math.log(prior_std) - std.log() + squares - 0.5


class BayesianR2Plus1DModel(EchoMENPreTrainedModel):
    """EchoMEN's encoder with one Bayesian head.

    In evaluation mode the estimate is the mean over `num_samples` samples of the weights, the same for all clips.
    """

    config: BayesianR2Plus1DConfig
    config_class = BayesianR2Plus1DConfig
    supports_gradient_checkpointing = False
    _keep_in_fp32_modules_strict = ["head"]
    _can_record_outputs: dict = {}

    def __init__(self, config: BayesianR2Plus1DConfig) -> None:
        super().__init__(config)
        self.encoder = R2Plus1DEncoder(config)
        self.head = BayesianRegressionHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, BayesianRegressionHead):
            rho = math.log(math.expm1(self.config.initial_posterior_std))
            init.normal_(module.weight_mean, std=self.config.head_initializer_range)
            init.constant_(module.bias_mean, self.config.initial_ejection_fraction)
            init.constant_(module.weight_rho, rho)
            init.constant_(module.bias_rho, rho)
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that takes in the pixels."""
        return self.encoder.stem[0]

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> BayesianR2Plus1DOutput:
        """Estimate the ejection fraction of clips, (B, T, C, H, W), and its uncertainty."""
        check_pixel_values(pixel_values, self.config.num_channels)
        embedding = self.encoder(pixel_values)
        with maybe_autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(self.head.weight_mean.dtype)
            if self.training:
                sampled = self.head(embedding).unsqueeze(-1)  # (B, 1)
            else:
                sampled = self.head.sample(embedding, self.config.num_samples, self.config.sampling_seed)  # (B, S)
            return single_prediction(
                sampled.mean(dim=-1),
                BayesianR2Plus1DOutput,
                labels=labels,
                embedding=embedding,
                sampled_predictions=sampled,
                uncertainty=sampled.std(dim=-1, correction=0),
                kl_divergence=self.head.kl_divergence(),
            )


class EsfehLoss(MethodLoss):
    """Squared error of a sample plus the divergence of the weights from their prior, divided by N.

    This is the negative evidence lower bound per video for a label noise of variance 1/2.

    Args:
        kl_weight: Factor on the divergence.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, kl_weight: float = 1.0) -> None:
        super().__init__(train_labels)
        if kl_weight < 0:
            raise ValueError(f"`kl_weight` must not be negative, got {kl_weight}.")
        self.factor = kl_weight / len(train_labels)

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; of a `BayesianR2Plus1DOutput`."""
        regression = squared_error(outputs.regression, labels)
        divergence = self.factor * outputs.kl_divergence
        return regression + divergence, {"loss_regression": regression, "loss_divergence": divergence}


ESFEH = Method(
    name="esfeh",
    title="Esfeh",
    source="Kazemi Esfeh et al., A deep Bayesian video analysis framework: towards a more robust estimation of "
    "ejection fraction, MICCAI 2020. Neither code nor the details of network, prior and schedule were published: "
    "built here as R(2+1)D-18 with a mean-field Gaussian head, whose samples are averaged and whose spread is the "
    "uncertainty, on EchoNet's clips and schedule.",
    group="rival",
    loss=EsfehLoss,
    trainer_class=ArchitectureTrainer,
    model_class=BayesianR2Plus1DModel,
)
