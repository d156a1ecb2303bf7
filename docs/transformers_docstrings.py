"""Reading of the ways in which transformers documents arguments: (`int`, *optional*, defaults to 3), and `HfArg`."""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Docstring, Extension, Object


__all__ = ["TransformersDocstrings"]

ARGUMENT = re.compile(
    r"^(?P<start>\s+\w+) \(`(?P<type>[^`]+)`(?P<shape> of shape `[^`]+`)?(?P<optional>, \*optional\*)?"
    r"(?:, defaults to (?P<default>`[^`]+`|[^)]+))?\):[ \n]\s*(?P<text>\S)",
    re.MULTILINE,
)


class TransformersDocstrings(Extension):
    """Turns such arguments into those of Google's style, with the shape and the default in their text."""

    def on_attribute_instance(self, *, node: Any, attr: Attribute, **kwargs: Any) -> None:
        """Document a field that is made by `HfArg` by its help, and show its default as its value.

        Args:
            node: Assignment in the source.
            attr: The field.
            kwargs: Not used.
        """
        call = getattr(node, "value", None)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "HfArg":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            attr.docstring = Docstring(ast.literal_eval(given["help"]).replace("%%", "%"), parent=attr)
            attr.value = given["default"]

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object.

        Args:
            obj: Module, class, function or attribute.
            kwargs: Not used.
        """
        if obj.docstring is not None:
            obj.docstring.value = ARGUMENT.sub(google_style, obj.docstring.value)


def google_style(argument: re.Match[str]) -> str:
    """Write one argument anew.

    Args:
        argument: Match of `ARGUMENT`.

    Returns:
        The argument up to the first letter of its text.
    """
    notes = [argument["shape"].strip()] if argument["shape"] else []
    if argument["default"]:
        notes.append(f"default {'`' + argument['default'].strip('`') + '`'}")
    optional = ", optional" if argument["optional"] else ""
    note = f"({', '.join(notes)}) " if notes else ""
    return f"{argument['start']} ({argument['type']}{optional}): {note}{argument['text']}"
