"""Choice of the part of an encoder that stage 1 trains: nothing, its last blocks, low-rank changes, or all."""

from __future__ import annotations

import re
from typing import Any, cast

from torch import nn

from ..model.modeling_echomen import EchoMENModel


__all__ = ["encoder_blocks", "merge_low_rank", "parse_train_encoder", "require_part", "train_part_of_encoder"]


def parse_train_encoder(value: str) -> tuple[str, int]:
    """Read `none`, `lora`, `all` or `last_N` as a kind and a number of blocks."""
    match = re.fullmatch(r"(none|lora|all)|last_([1-9]\d*)", str(value))
    if match is None:
        raise ValueError(
            f"`train_encoder` is none, all, lora, or last_ and a number of blocks such as last_2, got {value!r}."
        )
    return (match[1], 0) if match[1] else ("last", int(match[2]))


def encoder_blocks(encoder: nn.Module) -> list[nn.Module]:
    """List the blocks of an encoder in their order: those of the stages that it names, or its one longest list."""
    network = cast(nn.Module, getattr(encoder, "model", encoder))
    names = getattr(network, "stage_names", None)
    if names is not None:
        return [block for name in names for block in cast(nn.Sequential, network.get_submodule(name))]
    lists = sorted((list(module) for module in network.modules() if isinstance(module, nn.ModuleList)), key=len)
    if len(lists) > 1 and len(lists[-1]) == len(lists[-2]):
        raise ValueError(
            f"Which of its parts are the blocks of {type(network).__name__} is not clear: for `train_encoder`, choose "
            "none, lora or all."
        )
    return lists[-1] if lists else [network]


def require_part(encoder: nn.Module, train_encoder: str) -> None:
    """Refuse more last blocks than an encoder has, and those of one that does not tell its blocks."""
    kind, count = parse_train_encoder(train_encoder)
    if kind == "last" and count > (found := len(encoder_blocks(encoder))):
        raise ValueError(f"`train_encoder` is last_{count}, but the encoder has {found} blocks only.")


def train_part_of_encoder(model: EchoMENModel, train_encoder: str, rank: int) -> None:
    """Fix the encoder except for the part that `train_encoder` names; a second call changes nothing.

    Fixed batch normalisation stays in evaluation mode, see `EchoMENModel.train`.
    """
    kind, count = parse_train_encoder(train_encoder)
    encoder = cast(nn.Module, model.encoder)
    model.freeze_encoder(kind == "none")
    require_part(encoder, train_encoder)
    if kind == "last":
        # What comes after them, such as a last normalisation, is trained too.
        first = next(encoder_blocks(encoder)[-count].parameters())
        parameters = list(encoder.parameters())
        position = next(index for index, parameter in enumerate(parameters) if parameter is first)
        for parameter in parameters[:position]:
            parameter.requires_grad_(False)
    elif kind == "lora":
        add_low_rank(encoder, rank)
    model.train(model.training)


def add_low_rank(encoder: nn.Module, rank: int) -> None:
    """Fix an encoder and add a trained matrix of low rank to every linear layer (LoRA, Hu et al., ICLR 2022)."""
    from ..inference.engines.optional_packages import import_extra  # with engines that most trainings do not need

    peft: Any = import_extra("peft", "lora")
    if not any(isinstance(module, peft.tuners.lora.LoraLayer) for module in encoder.modules()):
        layers = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ValueError(
                "`train_encoder` is lora, which changes linear layers, and this encoder has none: choose last_2, say."
            )
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
        peft.inject_adapter_in_model(config, encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge_low_rank(encoder: nn.Module) -> None:
    """Add the matrices of low rank to the weights, after which the encoder has its own layers again."""
    for parent in list(encoder.modules()):
        for name, module in list(parent.named_children()):
            if hasattr(module, "lora_A"):
                layer = cast(Any, module)
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
