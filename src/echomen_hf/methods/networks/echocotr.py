"""EchoCoTr (Muhtaseb and Yaqub, MICCAI 2022): UniFormer-S (Li et al., ICLR 2022) on long clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import maybe_autocast

from ...model.heads_echomen import EchoMENRegressionHead
from ...model.modeling_echomen import EchoMENOutput
from ..method import Method
from .architecture import ArchitectureTrainer, ClipModel, single_prediction
from .configuration_uniformer import UniFormerConfig


__all__ = ["ECHOCOTR", "UniFormerEncoder", "UniFormerModel"]


class PatchEmbedding(nn.Module):
    """Convolution that merges patches into one pixel each, and layer normalisation over its channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int],
        eps: float,
    ) -> None:
        super().__init__()
        self.projection = nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(out_channels, eps=eps)

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Merge patches; (B, C, T, H, W) -> (B, D, T', H', W')."""
        hidden_state = self.projection(hidden_state)
        return self.norm(hidden_state.movedim(1, -1)).movedim(-1, 1)


class LocalBlock(nn.Module):
    """Block whose relation aggregator is a learnt affinity of neighbours, a depth-wise convolution."""

    def __init__(self, channels: int, config: UniFormerConfig) -> None:
        super().__init__()
        size, hidden = config.local_kernel_size, config.mlp_ratio * channels
        self.position = position_encoding(channels)
        self.relation = nn.Sequential(
            nn.BatchNorm3d(channels),
            nn.Conv3d(channels, channels, 1),
            nn.Conv3d(channels, channels, size, padding=size // 2, groups=channels),
            nn.Conv3d(channels, channels, 1),
        )
        self.feed_forward = nn.Sequential(
            nn.BatchNorm3d(channels), nn.Conv3d(channels, hidden, 1), nn.GELU(), nn.Conv3d(hidden, channels, 1)
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Add position, relations and feed-forward network, one after the other; (B, C, T, H, W) -> same."""
        hidden_state = hidden_state + self.position(hidden_state)
        hidden_state = hidden_state + self.relation(hidden_state)
        return hidden_state + self.feed_forward(hidden_state)


class GlobalBlock(nn.Module):
    """Block whose relation aggregator is self-attention over all frames and pixels."""

    def __init__(self, channels: int, config: UniFormerConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * channels
        self.num_heads = channels // config.head_dim
        self.position = position_encoding(channels)
        self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels, eps=config.layer_norm_eps),
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, channels),
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Add position, relations and feed-forward network, one after the other; (B, C, T, H, W) -> same."""
        hidden_state = hidden_state + self.position(hidden_state)
        shape = hidden_state.shape[2:]
        tokens = hidden_state.flatten(2).transpose(1, 2)  # (B, C, T, H, W) -> (B, L, C)
        tokens = tokens + self._attend(self.norm(tokens))
        tokens = tokens + self.feed_forward(tokens)
        return tokens.transpose(1, 2).unflatten(2, shape)  # (B, L, C) -> (B, C, T, H, W)

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3 C) -> (B, L, 3, heads, C / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, C / heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))  # (B, heads, L, C / heads) -> (B, L, C)


def position_encoding(channels: int) -> nn.Conv3d:
    """Make the position encoding, a depth-wise convolution whose zero padding marks the borders."""
    return nn.Conv3d(channels, channels, 3, padding=1, groups=channels)


class UniFormerLayers(ClipModel):
    """Layers of UniFormer, from a clip to its features."""

    config: UniFormerConfig
    config_class = UniFormerConfig
    supports_gradient_checkpointing = False
    _no_split_modules = ["LocalBlock", "GlobalBlock"]

    def __init__(self, config: UniFormerConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.ModuleList()
        self.stages = nn.ModuleList()
        in_channels = config.num_channels
        for position, (depth, channels) in enumerate(zip(config.depths, config.hidden_sizes)):
            if position == 0:
                time, height, width = config.stem_stride
                shape = ((time + 1, height, width), (time, height, width), ((time + 1) // 2, 0, 0))
            else:
                shape = ((1, 2, 2), (1, 2, 2), (0, 0, 0))
            self.embeddings.append(PatchEmbedding(in_channels, channels, *shape, config.layer_norm_eps))
            block = LocalBlock if position < config.num_local_stages else GlobalBlock
            self.stages.append(nn.Sequential(*[block(channels, config) for _ in range(depth)]))
            in_channels = channels
        self.stage_names = [f"stages.{position}" for position in range(len(config.depths))]
        self.norm = nn.BatchNorm3d(in_channels)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that takes in the pixels."""
        return self.get_submodule("embeddings.0.projection")

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the features of clips; (B, T, C, H, W) -> (B, D, T', H', W')."""
        hidden_state = self.channels_first(pixel_values)
        for embedding, stage in zip(self.embeddings, self.stages):
            hidden_state = stage(embedding(hidden_state))
        return self.norm(hidden_state)


class UniFormerEncoder(UniFormerLayers):
    """UniFormer without a head, as an encoder of EchoMEN."""

    def __init__(self, config: UniFormerConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutput:
        """Encode clips, (B, T, C, H, W), as tokens."""
        features = self.features(pixel_values)
        return BaseModelOutput(features.flatten(2).transpose(1, 2))  # (B, D, T, H, W) -> (B, L, D)


class UniFormerModel(UniFormerLayers):
    """UniFormer with one regression head on the pooled feature."""

    _keep_in_fp32_modules_strict = ["regression_head"]

    def __init__(self, config: UniFormerConfig) -> None:
        super().__init__(config)
        self.regression_head = EchoMENRegressionHead(config)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> EchoMENOutput:
        """Estimate the ejection fraction of clips, (B, T, C, H, W)."""
        hidden_state = self.features(pixel_values)
        dtype = torch.promote_types(hidden_state.dtype, torch.float32)
        pooled = hidden_state.mean(dim=(2, 3, 4), dtype=dtype)  # (B, C, T, H, W) -> (B, C)
        with maybe_autocast(pooled.device.type, enabled=False):
            ejection_fraction = self.regression_head(pooled.to(self.regression_head.weight.dtype)).squeeze(-1)
        return single_prediction(ejection_fraction, labels=labels, embedding=pooled)


ECHOCOTR = Method(
    name="echocotr",
    title="EchoCoTr",
    source="Muhtaseb and Yaqub, EchoCoTr: estimation of the left ventricular ejection fraction from spatiotemporal "
    "echocardiography, MICCAI 2022: UniFormer-S on 36 frames, every 4th. Trained from scratch unless weights are "
    "given; without stochastic depth; the schedule's decay is not known and left out.",
    group="rival",
    trainer_class=ArchitectureTrainer,
    model_class=UniFormerModel,
    published_training={
        "num_train_epochs": 45,
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
        "per_device_train_batch_size": 25,
    },
)
