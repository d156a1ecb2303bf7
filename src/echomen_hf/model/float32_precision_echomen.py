"""Precision of float32 arithmetic: IEEE, or the TF32 of NVIDIA's tensor cores for convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


__all__ = ["float32_precision"]

_cudnn: Any = torch.backends.cudnn  # whose switches its annotations do not name


@contextmanager
def float32_precision(convolutions: str | None = None) -> Iterator[None]:
    """Compute matrix products of float32 as IEEE 754 says, whatever PyTorch's switches allow.

    The heads and the losses are matrix products: TF32, or bfloat16 on CPUs, would cost them the digits that they need.
    The switches belong to the process and not to a thread.

    Args:
        convolutions: `"ieee"` or `"tf32"` for the convolutions of CUDA; `None` leaves them as they are.
    """
    products, of_convolutions = _matmul_precision(), _cudnn.conv.fp32_precision
    torch.set_float32_matmul_precision("highest")
    if convolutions is not None:
        _set_convolutions(convolutions)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            _set_convolutions(of_convolutions)


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # PyTorch refuses to tell after its old and its new switches were both used, as transformers does for TF32.
        return "high" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "highest"


def _set_convolutions(precision: str) -> None:
    # The old switch and the new ones: PyTorch raises where they disagree.
    _cudnn.allow_tf32 = precision == "tf32"
    _cudnn.conv.fp32_precision = precision
    _cudnn.rnn.fp32_precision = precision
