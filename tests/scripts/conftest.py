import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def load_script():
    """Import a script as a module, to call its `main` in this process."""

    def load(name):
        path = Path(__file__).resolve().parents[2] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"script_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
