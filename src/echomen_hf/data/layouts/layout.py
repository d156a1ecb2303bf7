"""What the layout of a public data set has to say of itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .tables import VideoRows


__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Layout of a data set.

    Args:
        name: Name by which it is chosen.
        title: What the videos are, a sentence.
        looks_for: Files by which it is recognised, for messages.
        matches: Function that tells whether a folder, or a file, has this layout.
        read: Function that reads the rows of a folder; its keyword arguments are the options of the layout.
        unsplit: What becomes of videos whose split nothing states: `"patient"` divides them by patient, `"none"` puts
            all into `test`.
        homepage: Where the data come from.
        license: Terms of the data.
        citation: BibTeX entry.
    """

    name: str
    title: str
    looks_for: str
    matches: Callable[[Path], bool]
    read: Callable[..., VideoRows]
    unsplit: Literal["patient", "none"] = "patient"
    homepage: str = ""
    license: str = ""
    citation: str = ""

    @property
    def options(self) -> set[str]:
        """Names of the options of `read`."""
        parameters = inspect.signature(self.read).parameters.values()
        return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
