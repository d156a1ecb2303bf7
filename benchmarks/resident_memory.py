"""How much memory a process has needed, and a limit on what it may still need."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


__all__ = ["allocation_limit", "field_bytes", "peak_resident_bytes"]

STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Read the largest resident memory that this process has had.

    Returns:
        Bytes.
    """
    if STATUS.exists():
        # Not `getrusage`, whose peak on Linux begins with that of the process that started this one.
        return field_bytes(STATUS, "VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def field_bytes(file: Path, field: str) -> int:
    """Read an amount of memory from what Linux says in a file.

    Args:
        file: Such as `/proc/self/status` or `/proc/meminfo`.
        field: Name of the amount there, such as `VmHWM`.

    Returns:
        Bytes.
    """
    [line] = [line for line in file.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


@contextmanager
def allocation_limit(num_bytes: int | None) -> Iterator[None]:
    """Let this process allocate so much and no more on top of what it has, where the system enforces that.

    Args:
        num_bytes: Bytes; `None` sets no limit.

    Yields:
        Nothing.
    """
    if num_bytes is None:
        yield
        return
    # Data and anonymous memory, which all tensors are; not address space, of which threads reserve far more. What
    # libraries have taken before differs between machines: they keep buffers for every core.
    present = field_bytes(STATUS, "VmData") if STATUS.exists() else peak_resident_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = present + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (allowed if hard == resource.RLIM_INFINITY else min(allowed, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
