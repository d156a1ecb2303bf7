"""Reading of published R(2+1)D weights, without running code that a file may contain."""

from pathlib import Path
from typing import Any

import torch


def read_backbone_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a weights file into a flat state dictionary in torchvision's names, without a leading `module.`."""
    if not path.is_file():
        raise FileNotFoundError(
            f"No backbone checkpoint at {path}; give the path of a .pt, .pth or .safetensors file."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a weights file ({type(error).__name__}). Only tensors in plain containers are "
            "accepted, since unpickling anything else could run code; save the bare `state_dict()` instead."
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state dictionary (a mapping of names to tensors).")
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_backbone_state(path: Path, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Refuse entries that are missing, unknown or of another shape than those of an encoder."""
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} where the configuration asks for {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(
            f"{path} does not fit the encoder: {shown}. It must hold an R(2+1)D state dictionary in torchvision's "
            "names with the depths, widths and channels of the configuration."
        )


__all__ = ["check_backbone_state", "read_backbone_state"]
