"""Print the oldest version of every dependency that pyproject.toml allows, as a constraints file for pip.

python scripts/minimum_versions.py pyproject.toml > constraints.txt
"""

import argparse
import re
import tomllib
from pathlib import Path


# Name, perhaps extras, and the first lower bound of a requirement.
REQUIREMENT = re.compile(r"^\s*(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?[^;]*?>=\s*(?P<version>[0-9][^,;\s]*)")


def lower_bounds(pyproject: str) -> dict[str, str]:
    """Read the lower bounds of the dependencies, those of the extra `test` included.

    Args:
        pyproject: Content of pyproject.toml.

    Returns:
        Version by name of the package.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["test"]]
    for requirement in extras["test"]:
        own = re.fullmatch(rf"{re.escape(project['name'])}\[(?P<extras>[^\]]*)\]", requirement)
        requirements += [line for extra in (own["extras"].split(",") if own else []) for line in extras[extra.strip()]]
    found = (REQUIREMENT.match(requirement) for requirement in requirements)
    return {match["name"]: match["version"] for match in found if match}


def main() -> None:
    """Print one constraint per line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pyproject", type=Path, help="Path of pyproject.toml.")
    args = parser.parse_args()
    for name, version in lower_bounds(args.pyproject.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
