"""Lookup of methods by name."""

from __future__ import annotations

import importlib
from difflib import get_close_matches

from .method import Method, MethodGroup


__all__ = ["get_method", "list_methods"]

# Name to module and attribute, in the order of tables; a module is imported when its method is looked up.
REGISTRY = {
    "sqinv": ("losses.sqinv", "SQINV"),
    "ddir": ("losses.ddir", "DDIR"),
    "focal_r": ("losses.focal_r", "FOCAL_R"),
    "ranksim": ("losses.ranksim", "RANKSIM"),
    "echonet": ("losses.echonet", "ECHONET"),
    "esfeh": ("networks.esfeh", "ESFEH"),
    "uvt": ("networks.uvt", "UVT"),
    "echognn": ("networks.echognn", "ECHOGNN"),
    "echocotr": ("networks.echocotr", "ECHOCOTR"),
    "adacon": ("losses.adacon", "ADACON"),
    "rank_n_contrast": ("losses.rank_n_contrast", "RANK_N_CONTRAST"),
    "balanced_mse": ("losses.balanced_mse", "BALANCED_MSE"),
    "dist_loss": ("losses.dist_loss", "DIST_LOSS"),
    "srl": ("losses.srl", "SRL"),
    "group_dir": ("losses.group_dir", "GROUP_DIR"),
    "echomen_plain_supcon": ("echomen", "PLAIN_SUPCON"),
    "echomen_stage_1_head": ("echomen", "STAGE_1_HEAD"),
    "echomen_category_experts": ("echomen", "CATEGORY_EXPERTS"),
    "echomen_mean_of_experts": ("echomen", "MEAN_OF_EXPERTS"),
    "echomen_videomae": ("encoders", "VIDEOMAE"),
    "echomen_timesformer": ("encoders", "TIMESFORMER"),
    "echomen_vivit": ("encoders", "VIVIT"),
    "echomen_vjepa2": ("encoders", "VJEPA2"),
    "echomen_uniformer": ("encoders", "ECHO_UNIFORMER"),
    "echomen_uvt": ("encoders", "UVT_ENCODER"),
    "echomen": ("echomen", "ECHOMEN"),
}


def list_methods(group: MethodGroup | None = None) -> list[str]:
    """List the names of the methods, of one group or all, in the order of tables."""
    return [name for name in REGISTRY if group is None or get_method(name).group == group]


def get_method(name: str) -> Method:
    """Look up a method by name.

    Raises:
        ValueError: If there is no such method; the message lists those that exist.
    """
    if name not in REGISTRY:
        close = get_close_matches(name, REGISTRY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no method {name!r}.{hint} Methods: {', '.join(REGISTRY)}.")
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(f".{module}", __package__), attribute)
