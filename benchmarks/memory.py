"""Peak memory of this process, and a limit on what it may still allocate."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


__all__ = ["allocation_limit", "peak_resident_bytes"]


def peak_resident_bytes() -> int:
    """Largest resident memory that this process has had. psutil knows the present one only."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `getrusage`, whose peak on Linux starts with that of the parent process.
        return int(re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def allocation_limit(num_bytes: int | None) -> Iterator[None]:
    """Limit what this process may allocate in addition to what it has. Enforced on Linux only."""
    if num_bytes is None or sys.platform != "linux":
        yield
        return
    # Data and anonymous memory, which includes all tensors. Threads reserve far more address space than they use. What
    # libraries have allocated before differs between machines: they keep buffers for every core.
    allowed = psutil.Process().memory_info().data + num_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
