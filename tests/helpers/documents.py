"""The pages of the documentation and the README, taken apart into what tests look at."""

import re
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the block without a language that follows it at once: what it printed."""

    page: str
    line: int
    language: str
    text: str
    output: str | None

    @property
    def first_line(self) -> str:
        return self.text.splitlines()[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    """All shell and Python blocks of a page, in order."""
    text = read_page(page)
    found = list(FENCE.finditer(text))
    blocks = []
    for match, after in zip(found, [*found[1:], None]):
        if match[1] not in ("bash", "python"):
            continue
        follows = after is not None and after[1] == "" and not text[match.end() : after.start()].strip()
        output = after[2] if follows else None
        blocks.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], output))
    return blocks


def prose_of(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", read_page(page))
