"""Reading of published R(2+1)D weights, without running code that a file may contain."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch


# Files often hold metrics beside the weights, such as R2 in EchoNet-Dynamic's, and those may be numpy scalars. Their
# constructor, which has an old and a new name, runs no code.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
]


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
            with torch.serialization.safe_globals(_NUMPY_SCALARS):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        refused = re.search(r"GLOBAL (\S+) was not", str(error))
        reason = f"it would run {refused[1]}" if refused else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a weights file ({reason}). Only tensors in plain containers are accepted, "
            "since unpickling anything else could run code; save the bare `state_dict()` instead."
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state dictionary (a mapping of names to tensors).")
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_backbone_state(path: Path, state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Refuse entries that are missing, unknown or of another shape than those of an encoder."""
    shapes = {name: f"{name} {tuple(value.shape)}" for name, value in (expected | state).items()}
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    problems = {
        "missing": [f"{name} {shape}" for name, shape in wanted.items() if name not in state],
        "unknown": [shapes[name] for name in state if name not in expected],
        "of another shape": [
            f"{shapes[name]} instead of {shape}"
            for name, shape in wanted.items()
            if name in state and tuple(state[name].shape) != shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} of its tensors are {kind}, such as {', '.join(names[:3])}"
            for kind, names in problems.items()
            if names
        )
        raise ValueError(
            f"{path} does not fit the encoder: {listed}. It must hold an R(2+1)D state dictionary in torchvision's "
            "names with the depths, widths and channels of the configuration."
        )


__all__ = ["check_backbone_state", "read_backbone_state"]
