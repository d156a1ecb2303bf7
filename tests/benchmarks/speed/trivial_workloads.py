"""Workloads that take no time, for tests of what runs them in processes of their own."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.speed import Unavailable, Workload


class Noting(Workload):
    """Appends its name to a file at every run, and takes as long as it is told."""

    def __init__(self, name, log, seconds=0.0, items=1, values=(1.0, 2.0)):
        self.name, self.log, self.seconds, self.items, self.numbers = name, Path(log), seconds, items, values

    def run(self):
        with self.log.open("a") as file:
            file.write(f"{self.name} {os.getpid()}\n")
        time.sleep(self.seconds)
        return self.items

    def values(self):
        return np.array(self.numbers)

    def notes(self):
        return {"name": self.name}


class Printing(Noting):
    """Prints where answers go, as libraries do."""

    def run(self):
        print('{"seconds": 0}', flush=True)
        os.write(1, b"noise\n")
        return super().run()


class Dying(Noting):
    """Its process ends in the second run."""

    runs = 0

    def run(self):
        self.runs += 1
        if self.runs == 2:
            print("out of memory, says the kernel", file=sys.stderr, flush=True)
            os._exit(9)
        return super().run()


class Raising(Noting):
    """Its results cannot be had."""

    def values(self):
        raise ValueError("these numbers are broken")


class NotHere(Workload):
    """Needs what no machine has."""

    def __init__(self):
        raise Unavailable("this machine has no abacus")


class NotInstalled(Workload):
    """Needs a package that does not exist."""

    def __init__(self):
        import a_package_that_nobody_wrote  # noqa: F401


class Threads(Workload):
    """Tells how many threads its process was told to use."""

    def run(self):
        return 1

    def values(self):
        return np.array([float(os.environ.get("OMP_NUM_THREADS", "0"))])
