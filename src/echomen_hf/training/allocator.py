"""Setting of the C library that makes computing on Linux CPUs faster, never set on import.

glibc asks the kernel for every large block and gives it back when it is freed. A network's activations are such
blocks, so that every step touches fresh pages, which the kernel has to clear. A process that keeps its blocks computes
the same numbers in less time (`docs/speed.md`).
"""

from __future__ import annotations

import ctypes
import platform

from transformers.utils import logging


__all__ = ["keep_large_blocks"]

logger = logging.get_logger(__name__)

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_large_blocks(keep: bool = True) -> bool:
    """Let this process, and those that it forks, keep freed memory for its next allocation.

    Call it where a process starts: blocks that were allocated before stay as they are. The process then holds the most
    memory it has ever needed until it ends. Without glibc (macOS, Windows, Alpine) nothing changes: it returns False.
    """
    if not keep:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt if platform.libc_ver()[0] == "glibc" else None
    except (AttributeError, OSError, TypeError):
        mallopt = None
    # No block by mmap, and none given back from the top of the heap (-1 is the largest threshold).
    if mallopt is not None and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1):
        return True
    logger.info("Large blocks of memory are not kept: `keep_large_blocks` needs glibc, the C library of Linux.")
    return False
