import ctypes
import platform
import subprocess
import sys

import pytest

from echomen_hf.training import allocator
from echomen_hf.training.allocator import keep_large_blocks


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

# Resident memory, in MB, after a block of 400 MB that was used has been freed.
AFTER_A_LARGE_BLOCK = """
import ctypes, resource, sys
from echomen_hf.training.allocator import keep_large_blocks
print(keep_large_blocks(sys.argv[1] == "keep"))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resident()
block = libc.malloc(400_000_000)
ctypes.memset(block, 1, 400_000_000)
libc.free(block)
print(resident() - before)
"""


@needs_glibc
@pytest.mark.parametrize(
    ("argument", "lowest", "highest"), [("keep", 390, 420), pytest.param("leave", -10, 20, marks=pytest.mark.slow)]
)
def test_freed_block_stays_with_the_process_that_asked_for_it(argument, lowest, highest):
    child = subprocess.run(
        [sys.executable, "-c", AFTER_A_LARGE_BLOCK, argument], capture_output=True, text=True, timeout=120, check=True
    )
    done, kept = child.stdout.split()
    assert done == str(argument == "keep")
    assert lowest < float(kept) < highest


@pytest.fixture
def messages(monkeypatch):
    messages = []
    monkeypatch.setattr(allocator.logger, "info", messages.append)
    return messages


def test_other_c_libraries_are_left_alone(monkeypatch, messages):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked for the C library"))
    assert not keep_large_blocks()
    assert "needs glibc" in messages[0]


def test_glibc_that_refuses_is_reported(monkeypatch, messages):
    class Refusing:
        def mallopt(self, parameter, value):
            return 0

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Refusing())
    assert not keep_large_blocks()
    assert len(messages) == 1


def test_nothing_happens_unless_it_is_asked_for(monkeypatch, messages):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked for the C library"))
    assert not keep_large_blocks(False)
    assert not messages
