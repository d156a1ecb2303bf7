"""How many parameters a method trains."""

from __future__ import annotations

from transformers import PreTrainedModel

from ..model.modeling_echomen import EchoMENModel
from .method import Method


__all__ = ["trained_parameter_count"]


def trained_parameter_count(method: Method, model: PreTrainedModel) -> int:
    """Count the parameters that a method trains, in whichever of its stages.

    An EchoMEN model has every head whether or not a method uses it: experts and aggregator are of no use to a method
    of one stage, the projector to one without a contrast on it, the aggregator to a mean of experts.

    Args:
        method: The method.
        model: Its model.

    Returns:
        Number of parameters.
    """
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not is_idle(name, method, model))


def is_idle(name: str, method: Method, model: PreTrainedModel) -> bool:
    """Tell whether a parameter belongs to a head that a method does not train.

    Args:
        name: Name of the parameter.
        method: The method.
        model: Its model.

    Returns:
        Whether it is never trained.
    """
    if not isinstance(model, EchoMENModel):
        return False
    is_single_stage = method.training_defaults.get("stage", "both") == "1"
    idle = {
        "projector": method.loss is not None and not getattr(method.loss, "uses_projection", False),
        "experts": is_single_stage,
        "aggregator": is_single_stage or model.config.expert_aggregation != "aggregator",
    }
    return idle.get(name.split(".")[0], False)
