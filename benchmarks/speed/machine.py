"""Description of the machine, and its peak performance."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.workload import Workload
from echomen_hf.runs.processes import available_cores


__all__ = ["MatrixProduct", "describe_machine"]

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def describe_machine() -> dict[str, Any]:
    """Properties of the machine that determine its speed."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 cannot tell
    names = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor_name() or platform.processor() or platform.machine(),
        "cores": available_cores(),
        "instructions": [name for name in names if capabilities.get(name)],
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor_name() -> str | None:
    """Name of the processor, which Python does not know on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


class MatrixProduct(Workload):
    """Product of two square matrices, the measure of peak performance."""

    def __init__(self, precision: str, size: int = 4096, repetitions: int = 3) -> None:
        generator = torch.Generator().manual_seed(0)
        numbers = torch.randint(-100, 100, (2, size, size), generator=generator)
        self.left, self.right = numbers.to(TYPES[precision])
        self.precision, self.size, self.repetitions = precision, size, repetitions
        self.fastest = float("inf")

    def run(self) -> float:
        """Multiply the matrices several times."""
        multiply = torch._int_mm if self.precision == "int8" else torch.mm
        for _ in range(self.repetitions):
            began = time.perf_counter()
            multiply(self.left, self.right)
            self.fastest = min(self.fastest, time.perf_counter() - began)
        return self.repetitions

    def values(self) -> NDArray[np.floating]:
        """Highest FLOP/s so far."""
        return np.array([2 * self.size**3 / self.fastest])
