"""PyTorch EchoMEN model."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import maybe_autocast
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .backbone_weights_echomen import check_backbone_state, read_backbone_state
from .configuration_echomen import EchoMENConfig
from .heads_echomen import (
    EchoMENAdapter,
    EchoMENAdapterOutput,
    EchoMENAggregator,
    EchoMENProjector,
    EchoMENRegressionHead,
    EchoMENTrainingDistribution,
)
from .r2plus1d_echomen import R2Plus1DEncoder, R2Plus1DStage, frozen_batch_statistics
from .recalibration_echomen import recalibrate
from .video_encoder_echomen import NoEncoder, VideoEncoder, check_pixel_values, load_video_model, origin_of_weights


logger = logging.get_logger(__name__)


@dataclass
class EchoMENOutput(ModelOutput):
    """Everything one forward pass of EchoMEN computes; B clips, M experts, embedding size D, projection size P.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean squared error of `ejection_fraction` in squared percent, when `labels` are given. Training adds the
            other terms of the two stages; see `echomen_hf.training`.
        logits (`torch.FloatTensor` of shape `(B, 1)`):
            Ejection fraction in percent under the name and shape that generic regression tools expect.
        expert_predictions (`torch.FloatTensor` of shape `(B, M)`):
            Ejection fraction of every expert in percent; NaN where `expert_top_k` left an expert out.
        expert_weights (`torch.FloatTensor` of shape `(B, M)`):
            Weight of every expert in the ensemble; each row sums to 1.
        embedding (`torch.FloatTensor` of shape `(B, D)`):
            Pooled feature of the encoder, before an adapter.
        projection (`torch.FloatTensor` of shape `(B, P)`):
            L2-normalised projection that the contrastive loss of stage 1 compares; `None` while a model is trained
            whose projector is not.
        regression (`torch.FloatTensor` of shape `(B,)`):
            Ejection fraction of the regression head of stage 1 in percent.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of the stem and of every stage, each of shape `(B, channels, frames, height, width)`.
    """

    loss: torch.Tensor | None = None
    # Always set; ModelOutput wants a default for all fields but one.
    logits: torch.Tensor = None  # type: ignore[assignment]
    expert_predictions: torch.Tensor = None  # type: ignore[assignment]
    expert_weights: torch.Tensor = None  # type: ignore[assignment]
    embedding: torch.Tensor = None  # type: ignore[assignment]
    projection: torch.Tensor = None  # type: ignore[assignment]
    regression: torch.Tensor = None  # type: ignore[assignment]
    hidden_states: tuple[torch.Tensor, ...] | None = None

    @property
    def ejection_fraction(self) -> torch.Tensor:
        """Ejection fraction in percent, shape (B,)."""
        return self.logits.squeeze(-1)


class EchoMENPreTrainedModel(PreTrainedModel):
    """Weight initialisation, checkpointing and loading, shared by the models of this file."""

    config: EchoMENConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    # The Trainer divides by the gradient accumulation steps only if the model does not claim to do so itself.
    accepts_loss_kwargs = False
    # Their constructors state the type too, since `from_config` does not look at this list.
    _keep_in_fp32_modules_strict = ["projector", "regression_head", "experts", "aggregator"]
    _no_split_modules = ["R2Plus1DBlock", "R2Plus1DStem"]
    _can_record_outputs = {"hidden_states": OutputRecorder(R2Plus1DStage)}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save weights under the names that they have in the model, and configuration."""
        # An encoder of transformers may have had others once, under which a Trainer would not find its weights again.
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, EchoMENRegressionHead):
            init.normal_(module.weight, std=self.config.head_initializer_range)
            init.constant_(module.bias, self.config.initial_ejection_fraction)
        elif isinstance(module, EchoMENAdapterOutput):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            init.zeros_(module.bias)
        elif isinstance(module, EchoMENTrainingDistribution):
            init.zeros_(module.mean)
            init.copy_(module.precision, torch.eye(len(module.mean)))


class EchoMENModel(EchoMENPreTrainedModel):
    """EchoMEN: a video encoder shared by M regression experts that an aggregator weighs (section 2 of the paper).

    The encoder is R(2+1)D, or with `encoder_config` another video model.

    Example:
    ```python
    >>> import torch
    >>> from echomen_hf import EchoMENConfig, EchoMENModel

    >>> model = EchoMENModel(EchoMENConfig(depths=(1, 1), hidden_sizes=(8, 16), image_size=56, num_frames=16)).eval()
    >>> output = model(pixel_values=torch.zeros(2, 16, 3, 56, 56))
    >>> output.ejection_fraction.shape, output.expert_predictions.shape
    (torch.Size([2]), torch.Size([2, 3]))
    ```
    """

    # Set by the package, and never by the copy of this file that travels with a checkpoint.
    publisher: ClassVar[Callable[..., str] | None] = None

    def __init__(self, config: EchoMENConfig) -> None:
        super().__init__(config)
        # The type of what most code works on; the others take in the same clips.
        self.encoder: R2Plus1DEncoder = cast(Any, make_encoder(config))
        if isinstance(encoder := cast(nn.Module, self.encoder), VideoEncoder):
            self.supports_gradient_checkpointing = encoder.model.supports_gradient_checkpointing
        self.adapter = None if config.adapter_size is None else EchoMENAdapter(config)
        self.projector = EchoMENProjector(config)
        self.regression_head = EchoMENRegressionHead(config)
        self.experts = nn.ModuleList(EchoMENRegressionHead(config) for _ in range(config.num_experts))
        self.aggregator = EchoMENAggregator(config)
        self.training_distribution = None
        if config.usual_distance is not None:
            self.training_distribution = EchoMENTrainingDistribution(config)
        optional = {"adapter": self.adapter, "training_distribution": self.training_distribution}
        present = [name for name, module in optional.items() if module is not None]
        self._keep_in_fp32_modules_strict = [*self._keep_in_fp32_modules_strict, *present]
        self.encoder_frozen = False
        self.post_init()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save weights, configuration and, for a registered class, the code that loads them."""
        if self._auto_class is not None:
            # A class registers for one Auto class only; generic video pipelines look for this one.
            known = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = {**known, "AutoModelForVideoClassification": "modeling_echomen.EchoMENModel"}
        super().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Publish the model on the Hub.

        Where the package `echomen_hf` is installed, the video processor, the code of the pipeline, the model card, and
        the metrics and figures of the folder from which the model was loaded are published too, in one commit; see
        `echomen_hf.hub.push_model`. Elsewhere, transformers publishes weights, configuration and code.

        Args:
            repo_id: Id of the repository, such as owner/name.
            kwargs: Options, such as `private`, `token`, `commit_message` and `tags`.
        """
        publisher = type(self).publisher
        if publisher is None:
            return super().push_to_hub(repo_id, **kwargs)
        tags = kwargs.pop("tags", None) or []
        tags = [*(self.model_tags or []), *([tags] if isinstance(tags, str) else tags)]
        return publisher(self, repo_id, tags=tags, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that takes in the pixels."""
        encoder: nn.Module = self.encoder
        if isinstance(encoder, VideoEncoder):
            return encoder.model.get_input_embeddings()
        return self.encoder.stem[0] if isinstance(encoder, R2Plus1DEncoder) else encoder

    def set_training_distribution(
        self, mean: torch.Tensor | None, precision: torch.Tensor | None = None, usual_distance: float | None = None
    ) -> None:
        """Store how the embeddings of usual videos are distributed, or forget it.

        Args:
            mean: Mean of the videos' embeddings, shape (D,); `None` to forget the distribution.
            precision: Inverse of their covariance, shape (D, D).
            usual_distance: Mahalanobis distance that 99 % of them do not exceed.
        """
        self.config.usual_distance = None if mean is None else usual_distance
        self.training_distribution = None
        if mean is not None and precision is not None:
            self.training_distribution = EchoMENTrainingDistribution(self.config).to(self.device)
            self.training_distribution.load_state_dict({"mean": mean, "precision": precision})

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Fix the encoder for stage 2, without gradients and always in evaluation mode, or release it."""
        self.encoder_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "EchoMENModel":
        """Set training mode; what is frozen in the encoder keeps its batch statistics, and a frozen encoder all."""
        super().train(mode)
        if getattr(self, "encoder_frozen", False):
            self.encoder.eval()
        elif mode:
            for layer in self.encoder.modules():
                if isinstance(layer, _BatchNorm) and not cast(torch.Tensor, layer.weight).requires_grad:
                    layer.eval()
        return self

    def head_input(self, embedding: torch.Tensor) -> torch.Tensor:
        """Compute what the heads take in from embeddings, (B, D) -> same; without an adapter, the embeddings."""
        return embedding if self.adapter is None else self.adapter(embedding)

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        embedding: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> EchoMENOutput:
        """Estimate the ejection fraction of clips, or of their embeddings.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, T, C, H, W)`, *optional*):
                Clips of T frames, normalised by the video processor. R(2+1)D takes any T, H and W; the configured
                ones are those the weights were trained for.
            embedding (`torch.FloatTensor` of shape `(B, D)`, *optional*):
                Output of the encoder from an earlier pass, instead of `pixel_values`.
            labels (`torch.FloatTensor` of shape `(B,)`, *optional*):
                Ejection fraction in percent.
            output_hidden_states (`bool`, *optional*):
                Whether to return the output of the stem and of every stage of R(2+1)D.
            return_dict (`bool`, *optional*):
                Whether to return an `EchoMENOutput` or a plain tuple.

        Returns:
            `EchoMENOutput`: every part of the estimate.

        Raises:
            ValueError: If not exactly one of the two inputs is given, or its shape does not fit the configuration.
        """
        if (pixel_values is None) == (embedding is None):
            raise ValueError("Give exactly one of `pixel_values` and `embedding`.")
        if pixel_values is not None:
            check_pixel_values(pixel_values, self.config.num_channels)
            embedding = self.encoder(pixel_values)
        elif embedding is not None and (embedding.ndim != 2 or embedding.shape[1] != self.config.embedding_size):
            raise ValueError(
                f"`embedding` must have shape (batch, {self.config.embedding_size}), got {tuple(embedding.shape)}."
            )

        # Numbers near 55.6 in half precision are multiples of 0.03 or 0.25 %: the heads stay in full precision.
        features = cast(torch.Tensor, embedding)
        with maybe_autocast(features.device.type, enabled=False):
            outputs = self._apply_heads(features.to(self.regression_head.weight.dtype))
        if labels is not None:
            if labels.numel() != len(features):
                raise ValueError(f"Got {labels.numel()} labels for {len(features)} clips; each needs one.")
            outputs.loss = F.mse_loss(outputs.ejection_fraction.float(), labels.float().view(-1))
        return outputs

    def _apply_heads(self, encoded: torch.Tensor) -> EchoMENOutput:
        if self.config.prediction_head is None:
            raise ValueError(
                "No head of this model is trained to give an ejection fraction (`prediction_head` is None): train "
                "stage 1 first, or use `model.encoder`, which gives embeddings."
            )
        embedding = self.head_input(encoded)
        regression = self.regression_head(embedding).squeeze(-1)
        expert_predictions, expert_weights = self._consult_experts(embedding, self._weigh_experts(embedding))
        if self.config.prediction_head == "regression":
            ejection_fraction = regression
        else:
            ejection_fraction = (expert_weights * expert_predictions.nan_to_num()).sum(dim=-1)
        curve = self.config.recalibration
        # Stage 2 has no use for the projector, which costs more than its experts.
        is_needed = not self.training or self.projector.fc1.weight.requires_grad
        return EchoMENOutput(
            logits=recalibrate(ejection_fraction, curve).unsqueeze(-1),
            expert_predictions=recalibrate(expert_predictions, curve),
            expert_weights=expert_weights,
            embedding=encoded,
            projection=self.projector(embedding) if is_needed else None,  # type: ignore[arg-type]
            regression=recalibrate(regression, curve),
        )

    def _weigh_experts(self, embedding: torch.Tensor) -> torch.Tensor:
        if self.config.expert_aggregation == "mean":
            return embedding.new_full((embedding.shape[0], self.config.num_experts), 1 / self.config.num_experts)
        return self.aggregator(embedding)

    def _consult_experts(
        self, embedding: torch.Tensor, expert_weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate the experts, all of them or in evaluation mode the `expert_top_k` heaviest, and fit the weights."""
        top_k = self.config.expert_top_k
        if top_k is None or top_k == self.config.num_experts or self.training:
            return torch.cat([expert(embedding) for expert in self.experts], dim=-1), expert_weights
        experts = cast(list[EchoMENRegressionHead], list(self.experts))
        weight = torch.cat([expert.weight for expert in experts])  # (M, D)
        bias = torch.cat([expert.bias for expert in experts])  # (M,)
        kept, index = expert_weights.topk(top_k, dim=-1)  # (B, k)
        consulted = torch.einsum("bd,bkd->bk", embedding, weight[index]) + bias[index]
        predictions = torch.full_like(expert_weights, torch.nan).scatter(-1, index, consulted)
        weights = torch.zeros_like(expert_weights).scatter(-1, index, kept / kept.sum(dim=-1, keepdim=True))
        return predictions, weights

    def _activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """Recompute blocks in the backward pass without moving their batch statistics a second time."""
        options = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        if options["use_reentrant"]:
            logger.warning_once(
                "Re-entrant activation checkpointing updates the running statistics of batch normalisation twice a "
                "step; pass `use_reentrant=False` to train exactly as without checkpointing."
            )
        else:
            options.setdefault("context_fn", self._checkpoint_contexts)
        super()._activation_checkpointing_enable(options, *args, **kwargs)

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), frozen_batch_statistics(self.encoder)

    @classmethod
    def from_backbone_checkpoint(cls, path: str | Path, config: EchoMENConfig | None = None) -> "EchoMENModel":
        """Build a model whose encoder has published R(2+1)D weights, in evaluation mode.

        Args:
            path: A state dictionary in torchvision's names (`r2plus1d_18`, Kinetics-400), or EchoNet-Dynamic's
                released checkpoint (`{"state_dict": ...}`, names that begin with `module.`, a one-output `fc` that
                becomes the regression head, which then gives the ejection fraction). A `.safetensors` file, or a
                PyTorch file, of which only tensors and plain containers are read.
            config: Configuration of the model; its encoder must have the shapes of the file. Defaults to the paper's.
        """
        path = Path(path)
        state = read_backbone_state(path)
        model = cls(config if config is not None else EchoMENConfig())
        head = {name.removeprefix("fc."): state.pop(name) for name in ("fc.weight", "fc.bias") if name in state}
        check_backbone_state(path, state, model.encoder.state_dict())
        model.encoder.load_state_dict(state)
        expected = {name: value.shape for name, value in model.regression_head.state_dict().items()}
        if {name: value.shape for name, value in head.items()} == expected:
            model.regression_head.load_state_dict(head)
            model.config.prediction_head = "regression"
        return model.eval()

    @classmethod
    def from_encoder(cls, name_or_path: str | Path, **fields: Any) -> "EchoMENModel":
        """Build a model on a pre-trained video model of transformers, in evaluation mode; its heads are not trained.

        Args:
            name_or_path: Folder or Hub id of a video model, such as `facebook/vjepa2-vitl-fpc64-256`.
            fields: Further fields of the configuration. Name and licence of the weights are stored there.
        """
        pretrained = load_video_model(name_or_path)
        own = {"prediction_head": None, **origin_of_weights(name_or_path), **fields}
        model = cls(EchoMENConfig(encoder_config=pretrained.config, **own))
        encoder = cast(VideoEncoder, cast(nn.Module, model.encoder)).model
        wanted = encoder.state_dict().keys()
        encoder.load_state_dict({name: value for name, value in pretrained.state_dict().items() if name in wanted})
        return model.eval()


def make_encoder(config: EchoMENConfig) -> nn.Module:
    """Make the encoder that a configuration describes."""
    if config.vector_size is not None:
        return NoEncoder()
    if config.encoder_config is not None:
        return VideoEncoder(cast(PreTrainedConfig, config.encoder_config), config.encoder_pooling)
    return R2Plus1DEncoder(config)


__all__ = ["EchoMENModel", "EchoMENOutput", "EchoMENPreTrainedModel"]
