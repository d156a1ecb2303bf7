"""The architecture: which files may import which, and how many lie at the top."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from scripts.package_facts import circles, folder_circles, imports, modules


@pytest.fixture(scope="module")
def graph():
    return imports()


def test_no_files_import_each_other(graph):
    assert circles(graph) == []


def test_no_files_or_folders_of_one_folder_import_each_other(graph):
    assert folder_circles(graph) == []


def test_nobody_imports_the_command_line(graph):
    users = {name for name, imported in graph.items() for other in imported if other.split(".")[0] == "cli"}
    assert {name for name in users if name.split(".")[0] != "cli"} == set()


def test_files_that_travel_with_a_checkpoint_know_only_each_other(graph):
    own = {name: imported for name, imported in graph.items() if name.split(".")[0] == "model"}
    assert len(own) > 10
    assert {other for imported in own.values() for other in imported if not other.startswith("model.")} == set()


def test_at_most_eight_files_at_the_top():
    assert 1 <= len([name for name, path in modules().items() if path.parent.name == "echomen_hf"]) <= 8


def test_every_package_that_is_imported_is_a_dependency():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    named = {re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_") for requirement in requirements}
    imported = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"echomen_hf"}
    assert {"torch", "av", "PIL"} <= foreign
    distributions = packages_distributions()
    packages = {name: distributions.get(name, [name])[0].lower().replace("-", "_") for name in foreign}
    assert [name for name, package in packages.items() if package not in named] == []


def test_circles_are_found(tmp_path):
    files = {
        "__init__": "from .a import x",
        "a/__init__": "",
        "a/one": "from ..b.three import y",
        "a/two": "def f():\n    from echomen_hf.a import four",
        "a/four": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import two",
        "b/__init__": "",
        "b/three": "",
        "b/five": "import echomen_hf.a.two",
        "c": "from .b import three, five",
    }
    for name, text in files.items():
        path = tmp_path / "echomen_hf" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = imports(tmp_path)
    assert graph["c"] == {"b.three", "b.five"}
    assert graph["b.five"] == {"a.two"}
    assert circles(graph) == [["a.four", "a.two"]]
    # Of files there is one circle; the folders `a` and `b` import each other as well.
    assert folder_circles(graph) == [["a", "b"], ["a.four", "a.two"]]
