import subprocess
import sys
from textwrap import dedent

import pytest

from benchmarks import memory


def run_alone(code):
    """Run code in a process that has allocated nothing else, where `memory` is the module."""
    start = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("memory", {memory.__file__!r})
        memory = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(memory)
    """
    command = [sys.executable, "-c", dedent(start) + dedent(code)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_peak_grows_with_what_is_touched_and_stays():
    before, with_block, after = map(
        int,
        run_alone("""
            print(memory.peak_resident_bytes())
            block = bytearray(b"1") * 2**27
            print(memory.peak_resident_bytes())
            del block
            print(memory.peak_resident_bytes())
        """),
    )
    # Linux counts pages per thread and adds them up now and then.
    rounding = 2**23
    assert with_block >= before + 2**27 - rounding
    assert after >= with_block - rounding


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_a_limit_is_on_top_of_what_a_process_has_and_ends_with_its_block():
    said = run_alone("""
        present = bytearray(2**28)
        with memory.allocation_limit(2**27):
            print(len(bytearray(2**26)) == 2**26)
            try:
                bytearray(2**28)
            except MemoryError:
                print("refused")
        print(len(bytearray(2**28)) == len(present))
    """)
    assert said == ["True", "refused", "True"]


def test_no_limit_changes_nothing():
    limit = "memory.resource.getrlimit(memory.resource.RLIMIT_DATA)"
    assert run_alone(f"""
        before = {limit}
        with memory.allocation_limit(None):
            print({limit} == before)
    """) == ["True"]
