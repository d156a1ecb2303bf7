"""Process of one side, which reads requests as lines of JSON and answers each with one line."""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

from benchmarks.memory import peak_resident_bytes
from benchmarks.speed.workload import Unavailable, Workload


__all__ = ["answer", "find_workload", "serve"]

GRACE_SECONDS = 5.0
"""Time to finish after the last request."""


def serve() -> None:
    """Answer requests until the input ends, even in the middle of one."""
    # The output of libraries must not be taken for an answer.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    state: dict[str, Workload] = {}
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=forward_requests, args=(requests,), daemon=True).start()
    while line := requests.get():
        try:
            reply = answer(json.loads(line), state)
        except (Unavailable, ModuleNotFoundError) as error:
            reply = {"unavailable": " ".join(str(error).split())}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        channel.write(json.dumps(reply) + "\n")


def forward_requests(requests: queue.SimpleQueue[str]) -> None:
    """Read requests in a thread, and end the process when the input ends."""
    for line in sys.stdin:
        requests.put(line)
    requests.put("")
    # An idle process ends by itself and removes its temporary files.
    time.sleep(GRACE_SECONDS)
    os._exit(0)


def answer(request: dict[str, Any], state: dict[str, Workload]) -> dict[str, Any]:
    """Answer one request. `state` keeps the workload."""
    call = request["call"]
    if call == "prepare":
        if request.get("keep_large_blocks"):
            from echomen_hf.training.allocator import keep_large_blocks

            keep_large_blocks()
        began = time.perf_counter()
        state["workload"] = find_workload(request["workload"])(**request["options"])
        return {"seconds": time.perf_counter() - began}
    workload = state["workload"]
    if call == "run":
        began = time.perf_counter()
        items = workload.run()
        return {"seconds": time.perf_counter() - began, "items": items}
    if call == "values":
        np.save(request["path"], np.asarray(workload.values(), dtype=np.float64))
        return {}
    if call == "notes":
        return {"notes": {**workload.notes(), "peak_memory_bytes": peak_resident_bytes()}}
    raise ValueError(f"There is no call {call!r}.")


def find_workload(name: str) -> type[Workload]:
    """Import a workload by its name, `module:Class`."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Workload)):
        raise TypeError(f"{name} is not a workload.")
    return found


if __name__ == "__main__":
    serve()
