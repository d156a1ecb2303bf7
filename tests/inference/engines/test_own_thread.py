import subprocess
import sys
import threading
from pathlib import Path

import pytest

from echomen_hf.inference.engines.own_thread import in_own_thread


def test_result_and_error_come_back_and_the_thread_is_another():
    assert in_own_thread(lambda a, b=1: (a + b, threading.get_ident()))(1, b=2)[0] == 3
    assert in_own_thread(threading.get_ident)() != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 / 0)()


PROGRAM = """
import gc, signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
from helpers.exportable_model import make_exportable_model
from echomen_hf.inference.engines.openvino_engine import OpenVINOEngine
model = make_exportable_model()
first, second = OpenVINOEngine.from_model(model, "bf16"), OpenVINOEngine.from_model(model)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run([sys.executable, "-c", ""], check=True)
print("alive")
"""


@pytest.mark.slow
def test_signals_are_handled_after_engines_are_freed_in_any_order():
    pytest.importorskip("openvino")
    here = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(here)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(here), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
    )
    assert found.stdout.endswith("alive\n"), found.stderr
