"""EchoGNN (Mokhtari et al., MICCAI 2022): a graph of frames whose weights explain the estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ...model.modeling_echomen import EchoMENOutput
from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer, ClipModel, present_frames, single_prediction
from .configuration_echognn import EchoGNNConfig


__all__ = ["ECHOGNN", "EchoGNNLoss", "EchoGNNModel", "EchoGNNOutput"]


@dataclass
class EchoGNNOutput(EchoMENOutput):
    """Output of EchoGNN; B clips of T frames, K classes of ejection fraction.

    Args:
        node_weights (`torch.FloatTensor` of shape `(B, T)`): Importance of every frame, between 0 and 1; 0 for frames
            that the video does not have.
        edge_weights (`torch.FloatTensor` of shape `(B, T, T)`): Importance of the relation from the first frame to the
            second, likewise; 0 from a frame to itself.
        class_logits (`torch.FloatTensor` of shape `(B, K)`): Logits of the auxiliary classification.
    """

    node_weights: torch.Tensor | None = None
    edge_weights: torch.Tensor | None = None
    class_logits: torch.Tensor | None = None


class ResidualBlock(nn.Module):
    """Convolution over space and time beside a projection, then pooling over space alone."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm3d(out_channels)
        )
        self.projection = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 1, bias=False), nn.BatchNorm3d(out_channels)
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Compute (B, C, T, H, W) -> (B, C', T, H / 2, W / 2)."""
        hidden_state = F.relu(self.convolution(hidden_state) + self.projection(hidden_state))
        # The largest of every 2 x 2 pixels. `max_pool3d` has no deterministic gradient on CUDA, and raises an error if
        # one is asked for.
        height, width = (size // 2 * 2 for size in hidden_state.shape[3:])
        pixels = hidden_state[..., :height, :width].unflatten(4, (-1, 2)).unflatten(3, (-1, 2))
        return pixels.amax(dim=(4, 6))  # (B, C', T, H / 2, 2, W / 2, 2) -> (B, C', T, H / 2, W / 2)


class TwoLayers(nn.Sequential):
    """Two linear layers, each with a rectifier."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(
            nn.Linear(in_features, out_features), nn.ReLU(), nn.Linear(out_features, out_features), nn.ReLU()
        )


class PairLayers(nn.Module):
    """Two linear layers, each with a rectifier, on the features of two nodes joined together.

    The first layer is one matrix per node of a pair, which is the same and does not make every pair in memory.
    """

    def __init__(self, in_features: int, out_features: int, edge_features: int = 0) -> None:
        super().__init__()
        self.source = nn.Linear(in_features, out_features)
        self.target = nn.Linear(in_features, out_features, bias=False)
        self.edge = nn.Linear(edge_features, out_features, bias=False) if edge_features else None
        self.second = nn.Linear(out_features, out_features)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor | None = None) -> torch.Tensor:
        """Compute (B, T, D) and perhaps (B, T, T, E) -> (B, T, T, D')."""
        pairs = self.source(nodes).unsqueeze(2) + self.target(nodes).unsqueeze(1)
        if self.edge is not None and edges is not None:
            pairs = pairs + self.edge(edges)
        return F.relu(self.second(F.relu(pairs)))


class AttentionEncoder(nn.Module):
    """Computes the weights of frames and of their relations by passing messages over the complete graph.

    From nodes to edges, back to nodes and to edges again, as in neural relational inference (Kipf et al. 2018).
    """

    def __init__(self, config: EchoGNNConfig) -> None:
        super().__init__()
        size = config.attention_hidden_size
        self.embed = TwoLayers(config.hidden_sizes[-1], size)
        self.first_edges = PairLayers(size, size)
        self.nodes = TwoLayers(size, size)
        self.second_edges = PairLayers(size, size, size)
        self.node_weight = nn.Linear(size, 1)
        self.edge_weight = nn.Linear(size, 1)

    def forward(self, frames: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight nodes, (B, T), and edges, (B, T, T), between 0 and 1; frames are (B, T, D)."""
        others = ~torch.eye(frames.shape[1], dtype=torch.bool, device=frames.device)
        exists = (present.unsqueeze(2) & present.unsqueeze(1) & others).unsqueeze(-1)  # (B, T, T, 1)
        edges = self.first_edges(self.embed(frames))  # (B, T, T, E)
        # The mean of the messages that arrive; a single frame receives none.
        messages = (edges * exists).sum(dim=1) / exists.sum(dim=1).clamp(min=1)  # (B, T, E)
        nodes = self.nodes(messages)
        edges = self.second_edges(nodes, edges)
        node_weights = self.node_weight(nodes).squeeze(-1).sigmoid() * present
        edge_weights = (self.edge_weight(edges).sigmoid() * exists).squeeze(-1)
        return node_weights, edge_weights


class DenseGraphConvolution(nn.Module):
    """Graph convolution on a weighted adjacency matrix (Kipf and Welling 2017)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, nodes: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Compute (B, T, D) and the normalised adjacency (B, T, T) -> (B, T, D')."""
        return F.relu(adjacency @ self.linear(nodes))


class EchoGNNModel(ClipModel):
    """EchoGNN: a video encoder, an attention encoder that makes the graph, and a graph regressor."""

    config: EchoGNNConfig
    config_class = EchoGNNConfig
    supports_gradient_checkpointing = False

    def __init__(self, config: EchoGNNConfig) -> None:
        super().__init__(config)
        sizes = [config.num_channels, *config.hidden_sizes]
        self.video_encoder = nn.Sequential(*[ResidualBlock(a, b) for a, b in zip(sizes[:-1], sizes[1:])])
        self.attention_encoder = AttentionEncoder(config)
        widths = [config.hidden_sizes[-1], *config.graph_hidden_sizes]
        self.graph = nn.ModuleList(DenseGraphConvolution(a, b) for a, b in zip(widths[:-1], widths[1:]))
        hidden = config.regression_hidden_size
        self.regression_head = nn.Sequential(nn.Linear(widths[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.classification_head = nn.Sequential(
            nn.Linear(widths[-1], hidden), nn.ReLU(), nn.Linear(hidden, len(config.class_edges) + 1)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that takes in the pixels."""
        return self.get_submodule("video_encoder.0.convolution.0")

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> EchoGNNOutput:
        """Estimate the ejection fraction of clips, (B, T, C, H, W), and the weights of frames and relations."""
        present = present_frames(pixel_values)
        frames = self.video_encoder(self.channels_first(pixel_values))
        frames = frames.mean(dim=(3, 4)).transpose(1, 2)  # (B, D, T, H, W) -> (B, T, D)
        frames = frames + sinusoidal_positions(frames)
        node_weights, edge_weights = self.attention_encoder(frames, present)
        adjacency, nodes = normalized_adjacency(edge_weights), frames
        for layer in self.graph:
            nodes = layer(nodes, adjacency)
        total = node_weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
        pooled = (node_weights.unsqueeze(-1) * nodes).sum(dim=1) / total  # (B, T, D) -> (B, D)
        ejection_fraction = 100 * self.regression_head(pooled).float().sigmoid().squeeze(-1)
        return single_prediction(
            ejection_fraction,
            EchoGNNOutput,
            labels=labels,
            embedding=pooled,
            node_weights=node_weights,
            edge_weights=edge_weights,
            class_logits=self.classification_head(pooled),
        )


def sinusoidal_positions(frames: torch.Tensor) -> torch.Tensor:
    """Encode the position of frames, (B, T, D), by sines and cosines, (T, D) (Vaswani et al. 2017)."""
    length, size = frames.shape[1:]
    position = torch.arange(length, device=frames.device, dtype=torch.float32).unsqueeze(1)  # (T, 1)
    column = torch.arange(size, device=frames.device)
    angle = position * torch.exp(-math.log(10000.0) * (column - column % 2) / size)  # (T, D)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).to(frames.dtype)


def normalized_adjacency(edge_weights: torch.Tensor) -> torch.Tensor:
    """Add self-loops of weight 1 and normalise by the degrees: D^-1/2 (A + I) D^-1/2.

    A row of the result gathers the messages that arrive at its node.
    """
    identity = torch.eye(edge_weights.shape[-1], dtype=edge_weights.dtype, device=edge_weights.device)
    arriving = edge_weights.transpose(1, 2) + identity
    scale = arriving.sum(dim=-1).rsqrt()  # (B, T)
    return scale.unsqueeze(2) * arriving * scale.unsqueeze(1)


class EchoGNNLoss(MethodLoss):
    """Absolute error of the fraction between 0 and 1, plus the cross-entropy of its class times a small weight.

    Args:
        classification_weight: Factor on the cross-entropy.
    """

    def __init__(self, train_labels: NDArray[np.float64], *, classification_weight: float = 0.001) -> None:
        super().__init__(train_labels)
        if classification_weight < 0:
            raise ValueError(f"`classification_weight` must not be negative, got {classification_weight}.")
        self.classification_weight = classification_weight

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of an `EchoGNNOutput`, see `MethodLoss`; an edge of classes belongs to the upper one."""
        regression = (outputs.regression.float() - labels.float()).abs().mean() / 100
        edges = torch.tensor(model.config.class_edges, dtype=torch.float32, device=labels.device)
        classes = torch.bucketize(labels.float(), edges, right=True)
        classification = F.cross_entropy(outputs.class_logits.float(), classes)
        loss = regression + self.classification_weight * classification
        return loss, {"loss_regression": regression, "loss_classification": classification}


ECHOGNN = Method(
    name="echognn",
    title="EchoGNN",
    source="Mokhtari et al., EchoGNN: explainable ejection fraction estimation with graph neural networks, MICCAI "
    "2022. The width of the attention encoder is chosen to give the 1.7 million parameters that EchoGNN is quoted "
    "with; the number of epochs is not known, so that of the comparison is kept.",
    group="rival",
    loss=EchoGNNLoss,
    trainer_class=ArchitectureTrainer,
    model_class=EchoGNNModel,
    # AdamW without weight decay is Adam.
    published_training={
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
        "per_device_train_batch_size": 80,
    },
)
