"""Generated text between marks in a document that is otherwise written by hand."""

from __future__ import annotations


__all__ = ["replace_section"]


def replace_section(text: str, name: str, content: str) -> str:
    """Put generated text between the marks of a section."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"The document needs {begin} and {end}, each once.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
