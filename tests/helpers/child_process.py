"""What tests run in processes of their own."""

from pathlib import Path


PUSH = """
from echomen_hf.cli import main
main("push")
"""


def hide_package(folder: Path) -> Path:
    """Make a folder that, on the path, hides the installed package, as if it had never been installed."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "sys.path[:] = [p for p in sys.path if not p.rstrip('/').endswith('src')]\n"
    )
    return folder
