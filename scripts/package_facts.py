#!/usr/bin/env python
"""Size and import circles of the package: `python scripts/package_facts.py [SRC]`, SRC being the folder `src`.

Imports inside functions and under TYPE_CHECKING count. The package's own `__init__`, which nobody imports, does not.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path


__all__ = ["circles", "docstring_lines", "folder_circles", "imports", "modules"]

PACKAGE = "echomen_hf"
SRC = Path(__file__).resolve().parents[1] / "src"

Graph = Mapping[str, set[str]]
"""Names of modules or folders that each one imports."""


def modules(src: Path = SRC) -> dict[str, Path]:
    """Find the files of the package by dotted name without the package's own, `""` for its `__init__`."""
    found = {}
    for path in sorted((src / PACKAGE).rglob("*.py")):
        parts = path.relative_to(src / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(src: Path = SRC) -> dict[str, set[str]]:
    """Find the modules of the package that each of its modules imports."""
    files = modules(src)
    graph = {}
    for name, path in files.items():
        folder = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {target for node in ast.walk(tree) for target in _targets(node, [part for part in folder if part])}
        # `from .folder import name` may import a module or what a module defines.
        graph[name] = {_known(target, files) for target in imported} - {name, ""}
    return {name: graph[name] for name in files if name}


def _targets(node: ast.AST, folder: list[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = [PACKAGE, *folder[: len(folder) - node.level + 1]] if node.level else []
        stem = ".".join([*base, *([node.module] if node.module else [])])
        names = [f"{stem}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        if name.split(".")[0] == PACKAGE:
            yield name.removeprefix(PACKAGE).removeprefix(".")


def _known(target: str, files: Mapping[str, Path]) -> str:
    while target not in files:
        target = target.rpartition(".")[0]
    return target


def circles(graph: Graph) -> list[list[str]]:
    """Find the groups of nodes that import each other, directly or not."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {
        frozenset(other for other in reached[node] if node in reached.get(other, ()))
        for node in graph
        if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def folder_circles(graph: Graph) -> list[list[str]]:
    """Find circles between files and folders that lie in the same folder, at every level."""
    found = []
    folders = {""} | {".".join(name.split(".")[:depth]) for name in graph for depth in range(1, name.count(".") + 1)}
    for folder in sorted(folders):
        depth = folder.count(".") + 2 if folder else 1
        siblings: dict[str, set[str]] = {}
        for name, imported in graph.items():
            if _is_below(name, folder):
                own = ".".join(name.split(".")[:depth])
                others = {".".join(other.split(".")[:depth]) for other in imported if _is_below(other, folder)}
                siblings.setdefault(own, set()).update(others - {own})
        found += circles(siblings)
    return found


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}.")


def docstring_lines(path: Path) -> int:
    """Count the lines of a file that are docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    total = 0
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            total += (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return total


def main(src: Path = SRC) -> None:
    """Print the facts."""
    files, graph = modules(src), imports(src)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    total = sum(lines.values())
    documented = sum(docstring_lines(path) for path in files.values())
    at_top = [path.name for path in files.values() if path.parent == src / PACKAGE]
    print(f"lines installed   {total}")
    print(f"docstrings        {documented / total:.1%}")
    print(f"files at the top  {len(at_top)}: {', '.join(sorted(at_top))}")
    for title, found in (("files", circles(graph)), ("siblings", folder_circles(graph))):
        print(f"circles of {title}: {len(found)}")
        for circle in found:
            print("  " + " <-> ".join(circle))
    per_folder: Counter[str] = Counter()
    for name, path in files.items():
        per_folder["." if path.parent == src / PACKAGE else name.split(".")[0]] += lines[name]
    for folder, count in per_folder.most_common():
        print(f"{count:7d}  {folder}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
