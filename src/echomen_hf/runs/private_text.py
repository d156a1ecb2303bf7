"""Text without the folders above what a command was given, since they may have patients' names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


__all__ = ["hide_parents_of", "paths_among", "private_streams", "without_parents"]

_MAY_BE_IDS = ("", "--model", "--repo", "--hub_model_id")
"""Options whose values may be ids on the Hub; the first one stands for arguments without an option."""

_parents: set[str] = set()
_ancestors: set[str] = set()


def paths_among(arguments: Iterable[str]) -> Iterator[str]:
    """Find what may be a path in a command line, which an id on the Hub (owner/name) is not."""
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option, has_value, argument = argument.partition("=")
            if not has_value:
                continue
        looks_like_id = argument.count("/") == 1 and not argument.startswith((".", "/", "~"))
        if option not in _MAY_BE_IDS or not looks_like_id or os.path.exists(argument):
            yield argument


def hide_parents_of(paths: Iterable[Any]) -> None:
    """Let `without_parents` hide the folders above these paths and URLs; what is neither is passed over."""
    for path in paths:
        if not isinstance(path, str | Path):
            continue
        text = os.fspath(path)
        if "://" in text:
            parent = text.rpartition("/")[0]
            inside = parent.partition("://")[2].lstrip("/")
            found = {parent, inside, f"/{inside}"}
        else:
            local = os.path.expanduser(text)
            absolute = {os.path.join(os.getcwd(), local), os.path.abspath(local), os.path.realpath(local)}
            found = {os.path.dirname(name.rstrip(os.sep)) for name in {text, local, *absolute}}
            _ancestors.update(str(folder) for name in found if os.path.isabs(name) for folder in _above(name))
        _parents.update(found - {"", ".", os.sep, "/"})


def without_parents(text: str) -> str:
    """Take the hidden folders out of text: of `/archive/DOE_JOHN/clip.avi`, `clip.avi` is left."""
    for names, before, after, replacement in (
        (_parents, r"(?<![\w.-])", r"[/\\]+", ""),
        (_ancestors, r"(?<![\w.-])", r"(?![\w/\\-]|\.\w)", "..."),
    ):
        spelled = {spelling for name in names for spelling in (name, repr(name)[1:-1])}
        if found := [name for name in sorted(spelled, key=len, reverse=True) if name in text]:
            # A relative path inside another one is not the one that was given.
            patterns = [("" if name[0] in "/\\~." else r"(?<![/\\])") + re.escape(name) for name in found]
            text = re.sub(f"{before}(?:{'|'.join(patterns)}){after}", replacement, text)
    return text


@contextmanager
def private_streams() -> Iterator[None]:
    """Let whatever is written to the standard streams, by whom ever, go through `without_parents`."""
    streams: list[Any] = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    written = [stream.write for stream in streams]
    for stream, write in zip(streams, written):
        stream.write = lambda text, write=write: write(without_parents(text))
    try:
        yield
    finally:
        for stream, write in zip(streams, written):
            stream.write = write


def _above(folder: str) -> list[Path]:
    """A folder and those above it, but for the first two levels, such as / and /home."""
    path = Path(folder)
    return [each for each in (path, *path.parents) if len(each.parts) > 2]
