"""Process of one side of a comparison, seen from the process that compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.workload import Unavailable


__all__ = ["SideError", "SideProcess"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class SideError(RuntimeError):
    """A side failed or its process died. The message ends with its last output."""


class SideProcess:
    """Separate process for a workload, so that sides do not share an allocator."""

    def __init__(
        self,
        name: str,
        workload: str,
        options: dict[str, Any],
        keep_large_blocks: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self.name = name
        self.workload = workload
        self.options = options
        self.keep_large_blocks = keep_large_blocks
        environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
        if num_threads is not None:
            environment["OMP_NUM_THREADS"] = str(num_threads)
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env=environment,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for the comparing process, which then ends this one.
            start_new_session=True,
        )

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=error is not None)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def close(self, at_once: bool = False) -> None:
        """End the process."""
        if at_once:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._printed.close()

    def send(self, call: str, **arguments: Any) -> None:
        """Send a request without waiting for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death(call) from None

    def receive(self, call: str) -> dict[str, Any]:
        """Wait for the answer to a request."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death(call)
        reply = json.loads(line)
        if "unavailable" in reply:
            raise Unavailable(reply["unavailable"])
        if "error" in reply:
            raise SideError(f"{self.name} failed in {call}: {reply['error']}{self._tail()}")
        return reply

    def prepare(self) -> None:
        """Start to build the workload. `receive("prepare")` waits for it."""
        self.send(
            "prepare",
            workload=self.workload,
            options=self.options,
            keep_large_blocks=self.keep_large_blocks,
        )

    def run(self) -> float:
        """Run the workload once, and return the seconds per item."""
        self.send("run")
        reply = self.receive("run")
        return float(reply["seconds"]) / float(reply["items"])

    def values(self) -> NDArray[np.float64]:
        """Fetch the values that are compared with those of the other side."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "values.npy"
            self.send("values", path=str(path))
            self.receive("values")
            return np.load(path, allow_pickle=False)

    def notes(self) -> dict[str, Any]:
        """Fetch the notes for the report, with `peak_memory_bytes`."""
        self.send("notes")
        return self.receive("notes")["notes"]

    def _death(self, call: str) -> SideError:
        status = self._process.wait()
        return SideError(f"{self.name}: the process died in {call} with status {status}{self._tail()}")

    def _tail(self, length: int = 1500) -> str:
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - length))
        text = self._printed.read().decode("utf-8", errors="replace").strip()
        return f"\n{text}" if text else ""
