import resource
import sys

import pytest

from echomen_hf.resident_memory import allocation_limit, peak_resident_bytes


def test_the_peak_grows_with_what_is_touched_and_stays():
    before = peak_resident_bytes()
    block = bytearray(b"1") * (before + 2**26)
    peak = peak_resident_bytes()
    assert peak >= len(block)
    del block
    # Linux counts pages per thread and adds them up now and then.
    assert peak_resident_bytes() >= peak - 2**23


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_a_limit_is_on_top_of_what_a_process_has_and_ends_with_its_block():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    present = bytearray(2**28)
    with allocation_limit(2**27):
        assert len(bytearray(2**26)) == 2**26
        with pytest.raises(MemoryError):
            bytearray(2**28)
    assert len(bytearray(2**28)) == len(present)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_no_limit_changes_nothing():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with allocation_limit(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
