"""The network that outlines the left ventricle, and its configuration."""

# No `from __future__ import annotations`: it would disable the checks of the configuration's fields.
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from numpy.typing import NDArray
from torch import nn
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from ..checkpoints import OUTLINE_FOLDER
from ..model.configuration_echomen import is_of_transformers, require_positive
from ..model.sector_echomen import Sector, find_sector
from .picture_square import PictureSquare


__all__ = ["LeftVentricleOutliner", "LeftVentricleOutlinerConfig", "load_outliner"]

FRAME_OFFSETS = (-0.2, -0.1, -0.04, 0.0, 0.04, 0.1, 0.2)  # seconds


@strict
class LeftVentricleOutlinerConfig(PreTrainedConfig):
    r"""Configuration of `LeftVentricleOutliner`.

    Args:
        image_size (`int`, *optional*, defaults to 112):
            Height and width of the frames that the network takes in, in pixels.
        hidden_sizes (`list[int]`, *optional*, defaults to `(16, 32, 64, 128)`):
            Number of channels at a half, a quarter and so on of the frame's size.
        frame_offsets (`list[float]`, *optional*, defaults to `(-0.2, -0.1, -0.04, 0.0, 0.04, 0.1, 0.2)`):
            Moments that the network sees for one outline, in seconds from the frame that is outlined. One is 0.
        batch_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the batch normalisation layers.
        ef_error_quantile (`float`, *optional*):
            Error in EF points that 90 % of the ejection fractions from the outlines do not exceed. Without it they
            have no interval, and are not compared with the estimates of EchoMEN.

    Example:
    ```python
    >>> from echomen_hf.outline import LeftVentricleOutliner, LeftVentricleOutlinerConfig

    >>> model = LeftVentricleOutliner(LeftVentricleOutlinerConfig(hidden_sizes=(8, 16)))
    >>> model.config.frame_offsets
    [-0.2, -0.1, -0.04, 0.0, 0.04, 0.1, 0.2]
    ```
    """

    model_type = "echomen_outline"

    image_size: int = 112
    hidden_sizes: list[int] | tuple[int, ...] = (16, 32, 64, 128)
    frame_offsets: list[float] | tuple[float, ...] = FRAME_OFFSETS
    batch_norm_eps: float = 1e-5
    ef_error_quantile: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Reject arguments that no field knows, and name the one class."""
        unknown = sorted(key for key in kwargs if not is_of_transformers(key))
        if unknown:
            known = sorted({field.name for field in fields(self)} - {field.name for field in fields(PreTrainedConfig)})
            raise TypeError(f"LeftVentricleOutlinerConfig got unknown arguments {unknown}; known are {known}.")
        # JSON turns tuples into lists; one type on both sides makes a saved configuration equal its original.
        self.hidden_sizes, self.frame_offsets = list(self.hidden_sizes), list(self.frame_offsets)
        self.id2label = {0: "left_ventricle"}
        self.label2id = {"left_ventricle": 0}
        super().__post_init__(**kwargs)

    def validate_network(self) -> None:
        """Check that the network fits its frames."""
        require_positive(self, "image_size", "hidden_sizes", "batch_norm_eps")
        if self.image_size % 2 ** len(self.hidden_sizes):
            raise ValueError(
                f"`image_size` {self.image_size} cannot be halved {len(self.hidden_sizes)} times, once for each of "
                f"`hidden_sizes` {self.hidden_sizes}."
            )
        if self.frame_offsets.count(0.0) != 1:
            raise ValueError(f"`frame_offsets` must hold 0, the frame itself, once; got {self.frame_offsets}.")


class _Convolutions(nn.Sequential):
    """Convolutions of 3 x 3, each followed by batch normalisation; the first may halve height and width."""

    def __init__(self, in_channels: int, channels: int, count: int, eps: float, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for number in range(count):
            layers += [
                nn.Conv2d(in_channels, channels, 3, stride if number == 0 else 1, padding=1, bias=False),
                nn.BatchNorm2d(channels, eps=eps),
                nn.ReLU(inplace=True),
            ]
            in_channels = channels
        super().__init__(*layers)


class LeftVentricleOutliner(PreTrainedModel):
    """Encoder-decoder (U-Net, Ronneberger et al. 2015) that marks the left-ventricular cavity in every frame.

    It is written here and not taken from segmentation-models-pytorch or MONAI: neither is a dependency, their smallest
    encoders have several times the weights that fit into the package, and work at the full size of the frames. This
    one begins at half the size and ends with four logits per pixel of it (Shi et al. 2016), which is four times
    cheaper. The frames just before and after tell tissue, which stays, from speckle and noise, which change; those 0.1
    and 0.2 s away tell whether the ventricle is at its largest or its smallest.

    Args:
        config: Configuration.

    Example:
    ```python
    >>> import numpy as np
    >>> from echomen_hf.outline import load_outliner

    >>> outliner = load_outliner()
    >>> frames = np.zeros((60, 112, 112), dtype=np.uint8)
    >>> masks = outliner.predict_masks(frames, fps=50.0)
    >>> masks.shape, masks.dtype, bool(masks.any())
    ((60, 112, 112), dtype('bool'), False)
    ```
    """

    config_class = LeftVentricleOutlinerConfig
    base_model_prefix = "outliner"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["_Convolutions"]

    def __init__(self, config: LeftVentricleOutlinerConfig) -> None:
        super().__init__(config)
        sizes, eps = list(config.hidden_sizes), config.batch_norm_eps
        inputs = [len(config.frame_offsets), *sizes[:-1]]
        self.encoder = nn.ModuleList(
            _Convolutions(before, size, 2, eps, stride=2) for before, size in zip(inputs, sizes, strict=True)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(deeper, size, 1) for size, deeper in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.decoder = nn.ModuleList(_Convolutions(size, size, 2, eps) for size in sizes[:-1])
        self.head = nn.Conv2d(sizes[0], 4, 3, padding=1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        recordings: torch.Tensor | None = None,
    ) -> SemanticSegmenterOutput:
        """Mark the cavity in a batch of frames.

        Args:
            pixel_values: Frames and their neighbours on the scale from 0 to 1, `(B, len(frame_offsets), H, W)`, in the
                order of `frame_offsets`.
            labels: Masks of the cavity, bool or 0 and 1, `(B, H, W)`.
            recordings: Number of the recording that each frame is of, `(B,)`; only with `labels`.

        Returns:
            `logits`, `(B, 1, H, W)`, above 0 inside the cavity, and with `labels` the `loss`: cross entropy, plus one
            minus the soft Dice coefficient (Milletari et al. 2016) of every frame, plus the error of the logarithm of
            its area, plus, with `recordings`, the error of the logarithm of the ratio of two areas of a recording.
        """
        hidden, skips = pixel_values, []
        for stage in self.encoder:
            hidden = stage(hidden)
            skips.append(hidden)
        for lateral, stage, skip in reversed(list(zip(self.lateral, self.decoder, skips[:-1], strict=True))):
            hidden = stage(skip + F.interpolate(lateral(hidden), scale_factor=2, mode="nearest"))
        logits = F.pixel_shuffle(self.head(hidden), 2)  # (B, 4, H / 2, W / 2) -> (B, 1, H, W)
        loss = None
        if labels is not None:
            loss = _loss(logits[:, 0].float(), labels.to(logits.device, torch.float32), recordings)
        return SemanticSegmenterOutput(loss=loss, logits=logits)

    @torch.inference_mode()
    def predict_masks(
        self,
        frames: NDArray[np.uint8],
        fps: float,
        batch_size: int = 32,
        sector: Sector | None = None,
        numbers: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Mark the left-ventricular cavity in the frames of a video, in the video's own pixels.

        The ultrasound fan is cut out of a screen first, see `find_sector`. A frame in which the network sees no left
        ventricle has an empty mask.

        Args:
            frames: Frames of the video, gray, uint8, `(T, H, W)`.
            fps: Frames per second.
            batch_size: Frames per forward pass.
            sector: Where the fan is, if that is known already. Defaults to what `find_sector` finds.
            numbers: Frames to mark, `(K,)`. Defaults to all, K = T.

        Returns:
            Masks, bool, `(K, H, W)`.

        Raises:
            ValueError: If the frames are not such an array, or the rate is not positive.
        """
        if frames.dtype != np.uint8 or frames.ndim != 3 or not frames.size:
            raise ValueError(f"frames must be uint8 of shape (T, H, W), got {frames.dtype} {frames.shape}")
        if not fps > 0:
            raise ValueError(f"fps must be positive, got {fps}")
        square = PictureSquare.of(frames, find_sector(frames) if sector is None else sector)
        numbers = np.arange(len(frames)) if numbers is None else numbers
        order = neighbours(numbers, len(frames), fps, self.config.frame_offsets)  # (K, offsets)
        seen, places = np.unique(order, return_inverse=True)
        small = torch.from_numpy(square.cut_out(frames[seen], self.config.image_size))  # (seen, S, S)
        order = places.reshape(order.shape)
        masks = np.zeros((len(order), *frames.shape[1:]), dtype=bool)
        was_training = self.training
        self.eval()
        for start in range(0, len(order), batch_size):
            batch = small[torch.from_numpy(order[start : start + batch_size])]  # (B, offsets, S, S)
            batch = batch.to(self.device, memory_format=torch.channels_last)  # a third faster on a CPU
            logits = self(batch.to(self.dtype) / 255).logits
            square.put_back(logits[:, 0].float().cpu(), masks[start : start + batch_size])
        self.train(was_training)
        return masks


def load_outliner() -> LeftVentricleOutliner:
    """Load the outliner that comes with the package, trained on simulated hearts only.

    docs/outline.md says how it was trained and how well it does.

    Returns:
        The model, in evaluation mode.
    """
    return LeftVentricleOutliner.from_pretrained(OUTLINE_FOLDER).eval()


def neighbours(frames: NDArray[np.int64], num_frames: int, fps: float, offsets: Sequence[float]) -> NDArray[np.int64]:
    """Numbers of the frames at some times from each of `frames`, `(K, offsets)`; the ends of the video repeat."""
    steps = np.rint(np.asarray(offsets) * fps).astype(np.int64)
    return np.clip(np.asarray(frames, dtype=np.int64)[:, None] + steps, 0, num_frames - 1)


def _loss(logits: torch.Tensor, labels: torch.Tensor, recordings: torch.Tensor | None) -> torch.Tensor:
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels)
    inside = logits.sigmoid()
    both, area, true_area = (inside * labels).sum((1, 2)), inside.sum((1, 2)), labels.sum((1, 2))
    # 20 pixels keep an empty mask from turning on a single one
    overlap = (2 * both + 20) / (area + true_area + 20)
    error = torch.log((area + 20) / (true_area + 20))[true_area > 0]
    loss = cross_entropy + (1 - overlap).mean() + error.abs().sum() / len(labels)
    if recordings is None:
        return loss
    recordings = recordings.to(labels.device)[true_area > 0]
    is_pair = (recordings[:, None] == recordings).triu(1)
    return loss + (error[:, None] - error)[is_pair].abs().sum() / is_pair.sum().clamp(min=1)
