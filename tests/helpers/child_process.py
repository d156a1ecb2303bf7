"""What tests run in processes of their own."""

from pathlib import Path


PUSH = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import push_to_hub
from echomen_hf.cli.command_line import run_script
run_script(push_to_hub.main)
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
