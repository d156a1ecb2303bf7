import json
from pathlib import Path

import pytest

from benchmarks.speed.report import (
    RESULT_FIELDS,
    add_share_of_peak,
    arithmetic_text,
    duration,
    markdown_table,
    roofline_text,
    save_report,
    update_documentation,
)
from echomen_hf import EchoMENConfig


DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture
def measured():
    return {
        "name": "decode_clip",
        "ratio_median": 21.4,
        "ratio_min": 19.0,
        "ratio_max": 123.6,
        "reference": "the old way",
        "error": 0.5,
        "error_unit": "grey levels",
        "bound": 2.0,
        "target": 15.0,
        "side": "the new way",
        "item": "training item",
        "flops": None,
        "precision": None,
        "reference_seconds": 0.0428,
        "seconds": 0.002,
        "status": "measured",
        "notes": {},
        "reference_notes": {},
    }


@pytest.fixture
def report(measured):
    skipped = measured | {
        "name": "inference_best",
        "ratio_median": None,
        "ratio_min": None,
        "ratio_max": None,
        "error": None,
        "status": "skipped",
        "reason": "no such package",
    }
    return {
        "machine": {"processor": "Abacus", "cores": 2, "memory_bytes": 2**34, "instructions": ["beads"]},
        "versions": {"torch": "2", "openvino": None},
        "peaks": {"fp32": 1e12},
        "results": [measured, skipped],
    }


def test_table_by_hand(report):
    lines = markdown_table(report).splitlines()
    assert lines[2] == (
        "| `decode_clip` | 21.4 (19 to 124) | 15 | 0.5 grey levels (bound 2) | 42.8 ms | 2 ms |  | "
        "the new way, against the old way; per training item |"
    )
    assert lines[3].startswith("| `inference_best` | skipped |")
    assert lines[5] == "- `inference_best` skipped: no such package"


def test_table_says_what_falls_short(report, measured):
    measured["ratio_median"] = 14.9
    assert "- `decode_clip` does not reach 15" in markdown_table(report)


def test_table_says_how_far_the_codec_lets_decoding_go(report, measured):
    measured["notes"] = {"frames_per_video": 170.6, "codec_seconds_per_item": 0.00107}
    assert (
        "- `decode_clip` reads videos of 171 frames on average, spends 1.07 ms in the codec alone, so that without "
        "a cache the limit is 40.0"
    ) in markdown_table(report)


def test_json_has_the_promised_keys(report, tmp_path):
    save_report(tmp_path / "new", report)
    written = json.loads((tmp_path / "new" / "benchmark.json").read_text())
    assert {"machine", "versions", "results"} <= written.keys()
    assert all(set(RESULT_FIELDS) <= result.keys() for result in written["results"])
    assert (tmp_path / "new" / "benchmark.md").read_text() == markdown_table(report) + "\n"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["benchmark.json", "benchmark.md"]


def test_numbers_that_json_does_not_know_cost_no_report(report, measured, tmp_path):
    measured["notes"] = {"losses": [1.0, float("nan"), float("inf")]}
    save_report(tmp_path, report)
    written = json.loads((tmp_path / "benchmark.json").read_text())
    result = next(result for result in written["results"] if result["name"] == measured["name"])
    assert result["notes"] == {"losses": [1.0, None, None]}


def test_share_of_peak_by_hand(measured):
    result = measured | {"flops": 2e9, "precision": "fp32", "seconds": 0.01}
    add_share_of_peak([result], {"fp32": 4e11})
    assert result["flops_per_second"] == pytest.approx(2e11)
    assert result["share_of_peak"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "seconds, text", [(7200, "2 h"), (90, "90 s"), (1.234, "1.23 s"), (0.0123, "12.3 ms"), (2e-6, "2 µs")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_documentation_gets_all_three_sections(report, tmp_path):
    page = tmp_path / "performance.md"
    page.write_text((DOCS / "performance.md").read_text())
    update_documentation(page, report, EchoMENConfig())
    text = page.read_text()
    assert markdown_table(report) in text
    assert "Abacus, 2 cores, 16 GB, beads; torch 2." in text
    assert arithmetic_text(EchoMENConfig(), 0.002) in text
    assert json.loads((tmp_path / "performance.json").read_text()) == report


@pytest.mark.slow
def test_documentation_takes_some_results_from_another_machine(report, measured, tmp_path):
    page = tmp_path / "performance.md"
    page.write_text((DOCS / "performance.md").read_text())
    update_documentation(page, report, EchoMENConfig())
    machine = {"processor": "Slide rule", "cores": 1, "memory_bytes": 1, "instructions": ["logarithms"]}
    again, new = measured | {"ratio_median": 16.0}, measured | {"name": "decode_clip_pyav"}
    later = report | {"machine": machine, "peaks": {"fp32": 1.0}, "results": [again, new]}
    update_documentation(page, later, EchoMENConfig(), is_whole=False)
    written = json.loads(page.with_suffix(".json").read_text())
    assert [result["name"] for result in written["results"]] == ["decode_clip", "decode_clip_pyav", "inference_best"]
    assert written["results"][0]["ratio_median"] == 16.0
    assert written["results"][0]["measured_with"] == {"machine": machine}
    assert (written["machine"], written["peaks"]) == (report["machine"], report["peaks"])
    remark = "was measured on another machine, Slide rule, 1 cores, logarithms"
    assert page.read_text().count(remark) == 2

    update_documentation(page, report | {"results": [again]}, EchoMENConfig(), is_whole=False)
    written = json.loads(page.with_suffix(".json").read_text())
    assert "measured_with" not in written["results"][0]
    assert "measured_with" in written["results"][1]


def test_arithmetic_by_hand():
    # 40 epochs of (7465 * 2 * 484.9 + 1288 * 162.1) GFLOP at 0.3 * 156 TFLOP/s are 6367 s, in which 350,120 items are
    # read, 55 a second; one core reads 500.
    text = arithmetic_text(EchoMENConfig(), 0.002)
    assert "| 1 | 47 T | 1.77 h | 55 | 0.11 |" in text
    assert "| 8 | 374 T | 796 s | 440 | 0.88 |" in text


def test_page_shows_what_its_json_holds():
    report = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    decoding = next(result for result in report["results"] if result["name"] == "decode_clip")
    for section in (
        roofline_text(report),
        markdown_table(report),
        arithmetic_text(EchoMENConfig(), decoding["seconds"]),
    ):
        assert section in text
