"""UVT (Reynaud et al., MICCAI 2021): a transformer over embeddings of frames, in clips of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertEncoder

from ...model.modeling_echomen import EchoMENOutput
from ..method import Method
from ..method_trainer import Loss, MethodLoss
from .architecture import ArchitectureTrainer, ClipModel, present_frames, single_prediction
from .configuration_uvt import UVTConfig
from .uvt_clips import UVTTrainingClips, UVTVideoProcessor


__all__ = ["UVT", "UVTEncoder", "UVTLoss", "UVTModel", "UVTOutput"]


@dataclass
class UVTOutput(EchoMENOutput):
    """Output of UVT; B clips of T frames.

    Args:
        phase (`torch.FloatTensor` of shape `(B, T)`): Phase of the heart in every frame: 1 at end diastole, -1 at end
            systole.
        phase_loss (`torch.FloatTensor` of shape `()`, *optional*): Mean squared error of the phase over the frames
            whose phase is known, when `phase_labels` are given.
    """

    phase: torch.Tensor | None = None
    phase_loss: torch.Tensor | None = None


class FrameResidualBlock(nn.Module):
    """Two convolutions of a frame beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            frame_convolution(channels, channels, 3),
            nn.BatchNorm3d(channels),
            nn.LeakyReLU(),
            frame_convolution(channels, channels, 3),
            nn.BatchNorm3d(channels),
        )

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Compute (B, C, T, H, W) -> same."""
        return F.leaky_relu(hidden_state + self.layers(hidden_state))


class FrameEncoder(nn.Module):
    """Encoder half of a residual autoencoder, frame by frame (Hou et al. 2019).

    The input of every level also reaches the end, by a single convolution with the stride of all levels left.
    """

    def __init__(self, config: UVTConfig) -> None:
        super().__init__()
        sizes = config.encoder_sizes
        last, levels = sizes[-1], len(sizes) - 1
        self.stem = nn.Sequential(
            frame_convolution(config.num_channels, sizes[0], 3), nn.BatchNorm3d(sizes[0]), nn.LeakyReLU()
        )
        self.blocks, self.halvings, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (size, following) in enumerate(zip(sizes[:-1], sizes[1:])):
            self.blocks.append(nn.Sequential(*[FrameResidualBlock(size) for _ in range(config.encoder_depth)]))
            self.halvings.append(strided_convolution(size, following, 2))
            self.skips.append(strided_convolution(size, last, 2 ** (levels - level)))
        self.output = nn.Sequential(frame_convolution(last, last, 3), nn.BatchNorm3d(last), nn.LeakyReLU())
        self.embedding = nn.Linear(config.encoder_output_size, config.hidden_size)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Compute (B, C, T, H, W) -> (B, T, D)."""
        hidden_state = self.stem(clips)
        skipped: torch.Tensor | float = 0.0
        for blocks, halving, skip in zip(self.blocks, self.halvings, self.skips):
            skipped = skipped + skip(hidden_state)
            hidden_state = halving(blocks(hidden_state))
        hidden_state = self.output(hidden_state + skipped)
        return self.embedding(hidden_state.transpose(1, 2).flatten(2))  # (B, C, T, H, W) -> (B, T, C H W) -> (B, T, D)


class FrameHead(nn.Sequential):
    """Two linear layers from the feature of a frame to one number."""

    def __init__(self, config: UVTConfig) -> None:
        super().__init__(
            nn.Linear(config.hidden_size, config.head_hidden_size),
            nn.LeakyReLU(),
            nn.Linear(config.head_hidden_size, 1),
        )


class UVTLayers(ClipModel):
    """Frame encoder of UVT, and BERT's encoder without position embedding.

    Without position embedding a clip may have any number of frames, such as all those of a video. Frames that fill a
    clip up past the end of a video are seen by none of the others, and have no share in what is averaged.
    """

    config: UVTConfig
    config_class = UVTConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["BertLayer", "FrameEncoder"]

    def __init__(self, config: UVTConfig) -> None:
        super().__init__(config)
        self.frame_encoder = FrameEncoder(config)
        bert_config = BertConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
            attn_implementation=config._attn_implementation,
        )
        self.transformer = BertEncoder(bert_config)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that takes in the pixels."""
        return self.frame_encoder.stem[0]

    def features(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the features of the frames of clips, (B, T, D), and the share of each in its clip, (B, T, 1)."""
        present = present_frames(pixel_values)  # (B, T)
        frames = self.frame_encoder(self.channels_first(pixel_values))  # (B, T, D)
        mask = create_bidirectional_mask(self.transformer.config, frames, present)
        total, hidden_state = frames, frames
        for layer in self.transformer.layer:
            hidden_state = layer(hidden_state, mask)
            total = total + hidden_state
        features = total / (len(self.transformer.layer) + 1)  # the mean over all hidden states
        return features, (present / present.sum(dim=1, keepdim=True)).unsqueeze(-1)


class UVTEncoder(UVTLayers):
    """UVT without heads, as an encoder of EchoMEN."""

    def __init__(self, config: UVTConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutput:
        """Encode clips, (B, T, C, H, W), as tokens (B, T, D) whose mean is that of the frames that a video has."""
        features, share = self.features(pixel_values)
        return BaseModelOutput(features * (share * share.shape[1]).to(features.dtype))


class UVTModel(UVTLayers):
    """UVT with heads for ejection fraction and phase."""

    def __init__(self, config: UVTConfig) -> None:
        super().__init__(config)
        self.ejection_fraction_head = FrameHead(config)
        self.phase_head = FrameHead(config)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        phase_labels: torch.Tensor | None = None,
    ) -> UVTOutput:
        """Estimate the ejection fraction of clips, (B, T, C, H, W), and the phase of their frames.

        `phase_labels` are the phases, (B, T), between -1 and 1; NaN where not known.
        """
        features, share = self.features(pixel_values)
        fractions = self.ejection_fraction_head(features).float().sigmoid()  # (B, T, 1)
        phase = self.phase_head(features).float().tanh().squeeze(-1)  # (B, T)
        return single_prediction(
            100 * (fractions * share).sum(dim=1).squeeze(-1),
            UVTOutput,
            labels=labels,
            embedding=(features * share).sum(dim=1),
            phase=phase,
            phase_loss=None if phase_labels is None else masked_squared_error(phase, phase_labels),
        )


def masked_squared_error(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average the squared errors where labels are not NaN; 0, with a gradient of 0, if all are."""
    known = ~labels.isnan()
    errors = torch.where(known, predictions - labels.nan_to_num(), 0.0)
    return errors.square().sum() / known.sum().clamp(min=1)


def frame_convolution(in_channels: int, out_channels: int, size: int) -> nn.Conv3d:
    """Make a convolution of every frame by itself that keeps its size."""
    return nn.Conv3d(in_channels, out_channels, (1, size, size), padding=(0, size // 2, size // 2), bias=False)


def strided_convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Make a convolution of disjoint patches of every frame, normalised."""
    shape = (1, stride, stride)
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, shape, stride=shape, bias=False), nn.BatchNorm3d(out_channels)
    )


EJECTION_FRACTION_WEIGHT = 5.0


class UVTLoss(MethodLoss):
    """Five times the squared error of the fraction between 0 and 1, plus that of the phase where it is known."""

    def forward(self, model: Any, outputs: Any, labels: torch.Tensor, num_views: int) -> Loss:
        """Compute the loss of a `UVTOutput`, see `MethodLoss`."""
        regression = ((outputs.regression.float() - labels.float()) / 100).square().mean()
        # Times 0, since with several processes every trained parameter needs a gradient.
        phase = outputs.phase_loss if outputs.phase_loss is not None else 0.0 * outputs.phase.sum()
        return EJECTION_FRACTION_WEIGHT * regression + phase, {"loss_regression": regression, "loss_phase": phase}


UVT = Method(
    name="uvt",
    title="UVT",
    source="Reynaud et al., Ultrasound video transformers for cardiac ejection fraction estimation, MICCAI 2021: beat "
    "mirrored in training, whole video in windows of 128 frames in testing. Frames are resized to 128 pixels; the "
    "numbers of epochs and of videos per step are not known, so those of the comparison are kept.",
    group="rival",
    loss=UVTLoss,
    trainer_class=ArchitectureTrainer,
    model_class=UVTModel,
    processor_class=UVTVideoProcessor,
    training_clips=UVTTrainingClips,
    published_training={
        "optim": "adamw_torch",
        "optim_args": None,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "lr_decay_epochs": 0,
    },
)
