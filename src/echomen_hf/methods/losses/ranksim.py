"""RankSim (Gong et al., ICML 2022): neighbours in label space become neighbours in feature space."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ...labels import label_bins
from ...losses import squared_error
from ...model.modeling_echomen import EchoMENModel, EchoMENOutput
from ...training.gather import loss_of_all_processes
from ..method import Method
from ..method_trainer import Loss, MethodLoss


__all__ = ["RANKSIM", "RankSimLoss", "blackbox_rank_gradient", "one_per_label", "ranks", "ranksim_loss"]


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Rank the values of every row, the largest first: rk(a)_j = 1 + the number of values above a_j, divided by n."""
    above = (values[..., None, :] > values[..., :, None]).sum(dim=-1)  # (..., n, n) -> (..., n)
    return (1 + above).to(values.dtype) / values.shape[-1]


def blackbox_rank_gradient(
    values: torch.Tensor, gradient_of_ranks: torch.Tensor, interpolation: float
) -> torch.Tensor:
    """Differentiate a loss of `ranks` with respect to the ranked values a (Vlastelica et al., ICLR 2020).

    For the gradient g of the ranks and a perturbation of size lambda: -(rk(a) - rk(a + lambda g)) / lambda.
    """
    return (ranks(values + interpolation * gradient_of_ranks) - ranks(values)) / interpolation


def one_per_label(labels: torch.Tensor, keys: torch.Tensor, bin_width: float = 1.0) -> torch.Tensor:
    """Choose the sample of every label bin with the largest key; positions, ascending."""
    order = keys.argsort(descending=True, stable=True)
    bins = label_bins(labels, bin_width)[order]
    has_earlier = (bins[:, None] == bins[None, :]).tril(diagonal=-1).any(dim=1)
    return order[~has_earlier].sort().values


def ranksim_loss(
    features: torch.Tensor, labels: torch.Tensor, *, weight: float = 100.0, interpolation: float = 2.0
) -> torch.Tensor:
    """Ranking similarity loss: squared differences of ranks, mean over each row and summed over the rows.

    Row i compares how sample i ranks all samples by cosine similarity of features with how it ranks them by -|y_i -
    y_j|. The perturbation behind the gradient is that of the weighted loss, as in the publication, and does not depend
    on what the result is multiplied by later (accumulation, loss scaling, several processes).
    """
    if not interpolation > 0:
        raise ValueError(f"`interpolation` must be positive, got {interpolation}.")
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.to(dtype), dim=-1)
        similarity = unit @ unit.T  # (N, N)
        labels = labels.to(dtype)
        with torch.no_grad():
            difference = ranks(similarity) - ranks(-(labels[:, None] - labels[None, :]).abs())
            value = weight * difference.square().mean(dim=1).sum()
            gradient_of_ranks = weight * 2 * difference / len(labels)
            gradient = blackbox_rank_gradient(similarity, gradient_of_ranks, interpolation)
        carrier = (gradient * similarity).sum()
    return value + carrier - carrier.detach()


class RankSimLoss(MethodLoss):
    """Mean squared error plus the ranking similarity of one random sample per label.

    Args:
        weight: Factor gamma on the ranking similarity.
        interpolation: Size lambda of the perturbation that differentiates the ranks.
        bin_width: EF points within which labels are the same.
    """

    def __init__(
        self,
        train_labels: NDArray[np.float64],
        *,
        weight: float = 100.0,
        interpolation: float = 2.0,
        bin_width: float = 1.0,
    ) -> None:
        super().__init__(train_labels)
        self.weight = weight
        self.interpolation = interpolation
        self.bin_width = bin_width

    def forward(self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a batch, see `MethodLoss`; samples of all processes are ranked."""
        regression = squared_error(outputs.regression, labels)
        # Drawn on the CPU, whose generator a resumed run restores, and gathered, so that all processes choose alike.
        keys = torch.rand(len(labels)).to(labels.device)
        ranking = loss_of_all_processes(self._rank, outputs.embedding, labels, keys)
        return regression + ranking, {"loss_regression": regression, "loss_ranking": ranking}

    def _rank(self, features: torch.Tensor, labels: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        chosen = one_per_label(labels, keys, self.bin_width)
        return ranksim_loss(features[chosen], labels[chosen], weight=self.weight, interpolation=self.interpolation)


RANKSIM = Method(
    name="ranksim",
    title="RankSim",
    source="Gong et al., Ranking similarity for deep imbalanced regression, ICML 2022; labels are the same within 1 "
    "EF point, ranks are divided by their number.",
    group="rival",
    loss=RankSimLoss,
)
