"""The process that one side of a comparison lives in, as the process that compares sees it."""

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
    """A side failed, or its process has died; the message ends with what it printed last."""


class SideProcess:
    """A process of its own for a workload, so that neither side profits from what the other's allocator kept.

    Args:
        name: Name of the side, for messages.
        workload: `module:Class` of the workload.
        options: Keyword arguments of its constructor.
        keep_large_blocks: Whether it starts with `echomen_hf.training.allocator.keep_large_blocks`.
        num_threads: Threads; all cores without, whatever the environment says.
    """

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
            # An interruption is for the process that compares, which then ends this one.
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
        """End the process.

        Args:
            at_once: Whether not to let it finish what it does.
        """
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
        """Ask for something without waiting for the answer.

        Args:
            call: Name of the call, see `worker.answer`.
            arguments: Its arguments.

        Raises:
            SideError: If the process has died.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death(call) from None

    def receive(self, call: str) -> dict[str, Any]:
        """Wait for the answer to what was asked.

        Args:
            call: Name of the call, for messages.

        Returns:
            The answer.

        Raises:
            Unavailable: If this machine lacks what the workload needs.
            SideError: If the workload failed or its process died.
        """
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
        """Begin to build the workload; `receive("prepare")` waits until that is done."""
        self.send(
            "prepare",
            workload=self.workload,
            options=self.options,
            keep_large_blocks=self.keep_large_blocks,
        )

    def run(self) -> float:
        """Run the workload once.

        Returns:
            Seconds per item, taken inside the process.
        """
        self.send("run")
        reply = self.receive("run")
        return float(reply["seconds"]) / float(reply["items"])

    def values(self) -> NDArray[np.float64]:
        """Fetch the numbers that must agree with the other side's.

        Returns:
            Array of any shape.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "values.npy"
            self.send("values", path=str(path))
            self.receive("values")
            return np.load(path, allow_pickle=False)

    def notes(self) -> dict[str, Any]:
        """Fetch what the report should say about this side, and the largest memory its process has had.

        Returns:
            Notes of the workload, and `peak_memory_bytes`.
        """
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
