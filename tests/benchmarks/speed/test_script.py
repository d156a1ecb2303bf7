import importlib
import json

import pytest


@pytest.fixture
def script(monkeypatch):
    """benchmarks/speed, which reports what it is given instead of measuring."""
    return importlib.import_module("benchmarks.speed.__main__")


def result(status):
    numbers = dict.fromkeys(("ratio_median", "ratio_min", "ratio_max", "error", "target", "bound"))
    names = {"name": "a", "side": "new", "reference": "old", "item": "clip", "error_unit": "EF points"}
    return {**names, **numbers, "status": status, "reason": "so it is", "precision": None}


@pytest.mark.parametrize("statuses, expected", [(["measured", "skipped"], 0), (["measured", "failed"], 1)])
def test_status_is_that_of_failures_only(script, monkeypatch, tmp_path, statuses, expected):
    given = {}

    def report(folder, **options):
        given.update(options)
        return {"machine": {}, "versions": {}, "results": [result(status) for status in statuses]}

    monkeypatch.setattr(script, "run_benchmark", report)
    assert script.main(["--output", str(tmp_path / "out"), "--quick", "--only", "decode_clip"]) == expected
    assert (given["effort"], given["only"]) == (script.QUICK, ["decode_clip"])
    written = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [entry["status"] for entry in written["results"]] == statuses


def test_documentation_takes_no_quick_runs(script):
    with pytest.raises(ValueError, match="no quick runs"):
        script.main(["--write_docs", "--quick"])
