"""How much memory a process has needed."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


__all__ = ["peak_resident_bytes"]


def peak_resident_bytes() -> int:
    """Read the largest resident memory that this process has had.

    Returns:
        Bytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        # Not `getrusage`, whose peak on Linux begins with that of the process that started this one.
        [line] = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
