"""Experts in closed form: on fixed embeddings, a linear expert is a weighted least-squares fit."""

from __future__ import annotations

import torch

from ..labels import BinWeightTable
from ..model.modeling_echomen import EchoMENModel
from .embeddings import TrainingEmbeddings


__all__ = ["set_experts_to_their_optimum", "solve_experts"]

_ROWS_AT_ONCE = 8192


def solve_experts(
    embeddings: torch.Tensor, labels: torch.Tensor, sample_weights: torch.Tensor, weight_decay: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimise the re-weighted regression loss of every expert exactly.

    Expert m minimises mean_i w_i^m (e_m(f(x_i)) - y_i)^2 + lambda / 2 |W_m|^2, to which SGD with weight decay
    lambda converges (equation 3 of the paper). The bias is not decayed. Without weight decay, and with fewer samples
    than dimensions, it is the solution with the smallest weights. For embeddings, (N, D), labels, (N,), and weights,
    (N, M), the result is weights, (M, D), and biases, (M,), in float64.
    """
    targets = labels.double()
    # Part by part: all embeddings in double precision may not fit into the memory.
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(embeddings), _ROWS_AT_ONCE)]
    weights, biases = [], []
    for column in sample_weights.double().unbind(dim=1):
        share = column / column.sum()
        center = torch.stack([share[part] @ embeddings[part].double() for part in parts]).sum(dim=0)
        mean = share @ targets
        square, product = center.new_zeros(len(center), len(center)), torch.zeros_like(center)
        for part in parts:
            root = (column[part] / len(column)).sqrt()
            rows = root[:, None] * (embeddings[part].double() - center)  # (n, D)
            square.addmm_(rows.T, rows)
            product += rows.T @ (root * (targets[part] - mean))
        # Below a part in 1e12 of the largest, an eigenvalue is rounding and not a direction of the embeddings.
        values, directions = torch.linalg.eigh(square)
        kept = values > 1e-12 * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
        projected = directions[:, kept].T @ product
        weight = directions[:, kept] @ (projected / (values[kept] + weight_decay / 2))
        weights.append(weight)
        biases.append(mean - weight @ center)
    return torch.stack(weights), torch.stack(biases)


@torch.no_grad()
def set_experts_to_their_optimum(
    model: EchoMENModel, dataset: TrainingEmbeddings, table: BinWeightTable, weight_decay: float
) -> None:
    """Give the experts of a model the weights to which training on embeddings converges; all draws count alike."""
    labels = torch.tensor(dataset.ejection_fractions, dtype=torch.float64)
    draws = len(dataset.positions)
    embeddings = dataset.embeddings
    if model.adapter is not None:
        embeddings = model.head_input(embeddings.to(model.device)).cpu()
    weights, biases = solve_experts(
        embeddings[torch.from_numpy(dataset.positions.reshape(-1))],  # (K * N, D)
        labels.repeat(draws),
        torch.as_tensor(table(labels)).repeat(draws, 1),
        weight_decay,
    )
    for expert, weight, bias in zip(model.experts, weights, biases):
        # In the type of the expert already: not every device has double precision.
        dtype = expert.weight.dtype
        expert.load_state_dict({"weight": weight[None].to(dtype), "bias": bias[None].to(dtype)})
