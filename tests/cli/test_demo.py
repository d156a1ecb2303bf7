import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo_end_to_end_in_small(recipe, tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "scripts/demo.py", "--output", str(tmp_path / "demo"), "--num_videos", "60"]
    first = subprocess.run([*command, "--recipe", str(recipe)], cwd=root, capture_output=True, text=True, timeout=900)
    assert first.returncode == 0, first.stderr[-3000:]
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())["test"]
    assert {"constant_mean", "stage1", "expert_0", "mean", "echomen", "oracle"} <= summary.keys()
    assert summary["oracle"]["mae"] <= summary["echomen"]["mae"]
    assert "AutoModel, without importing echomen_hf" in first.stdout
    assert "SYNTHETIC" in first.stdout
    second = subprocess.run([*command, "--recipe", str(recipe)], cwd=root, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0
    assert "done already" in second.stdout
