"""Calls in a separate thread, for libraries that change the thread that calls them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import ParamSpec, TypeVar


__all__ = ["in_own_thread"]

P = ParamSpec("P")
T = TypeVar("T")


def in_own_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function run in a thread that ends with it.

    On processors with AMX, OpenVINO gives the thread that compiles a network another stack for signals. Where two
    networks are freed in the order in which they were made, it leaves that thread with the freed stack of the first
    one, and the next signal that Python handles, such as the end of a data loader's process, ends the program.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *args, **kwargs).result()

    return call
