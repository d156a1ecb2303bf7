"""Parts of EchoMEN that work on embeddings: adapter, projector, experts, aggregator and training distribution."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_echomen import EchoMENConfig


class EchoMENAdapterOutput(nn.Linear):
    """Last layer of an adapter, which starts at zero so that the adapter changes nothing before it is trained.

    A class of its own, so that weight initialisation can distinguish it: parts without weights are never passed to it.
    """


class EchoMENAdapter(nn.Module):
    """Perceptron beside the identity, which moves embeddings of an encoder that is not trained itself."""

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__()
        hidden_size = cast(int, config.adapter_size)
        self.norm = nn.LayerNorm(config.embedding_size, elementwise_affine=False)
        self.fc1 = nn.Linear(config.embedding_size, hidden_size, dtype=torch.float32)
        self.fc2 = EchoMENAdapterOutput(hidden_size, config.embedding_size, dtype=torch.float32)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) -> same."""
        return embedding + self.fc2(F.relu(self.fc1(self.norm(embedding))))


class EchoMENProjector(nn.Module):
    """Projector h of the paper: a two-layer perceptron whose output lies on the unit sphere."""

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__()
        hidden_size = cast(int, config.projection_hidden_size)
        self.fc1 = nn.Linear(config.embedding_size, hidden_size, dtype=torch.float32)
        self.fc2 = nn.Linear(hidden_size, config.projection_size, dtype=torch.float32)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) -> (B, P)."""
        return F.normalize(self.fc2(F.relu(self.fc1(embedding))), dim=-1)


class EchoMENRegressionHead(nn.Linear):
    """One linear layer from the embedding to an ejection fraction: the head e of stage 1, and each expert of stage 2.

    A class of its own, so that weight initialisation can distinguish it from other linear layers.
    """

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__(config.embedding_size, 1, dtype=torch.float32)


class EchoMENAggregator(nn.Module):
    """Aggregator g of the paper: from the embedding to one weight per expert."""

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embedding_size, config.aggregator_hidden_size, dtype=torch.float32)
        self.fc2 = nn.Linear(config.aggregator_hidden_size, config.num_experts, dtype=torch.float32)

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) -> (B, M), before the softmax."""
        return self.fc2(F.relu(self.fc1(embedding)))

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) -> (B, M), rows that sum to 1."""
        return self.logits(embedding).softmax(dim=-1)


class EchoMENTrainingDistribution(nn.Module):
    """Where the embeddings of the videos lie that a model was calibrated on, as a normal distribution."""

    mean: torch.Tensor
    precision: torch.Tensor

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.usual_distance = cast(float, config.usual_distance)
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("precision", torch.eye(size, dtype=torch.float32))

    def unlikeness(self, embedding: torch.Tensor) -> float:
        """Mahalanobis distance of a video's mean embedding (D,), over the usual distance."""
        offset = embedding.to(self.mean.device, torch.float64) - self.mean.double()
        return float((offset @ self.precision.double() @ offset).sqrt()) / self.usual_distance


__all__ = [
    "EchoMENAdapter",
    "EchoMENAdapterOutput",
    "EchoMENAggregator",
    "EchoMENProjector",
    "EchoMENRegressionHead",
    "EchoMENTrainingDistribution",
]
