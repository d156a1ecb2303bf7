import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.speed import Comparison, Row, Side, measure
from benchmarks.speed.alternation import compare_values, ratio_statistics
from benchmarks.speed.report import RESULT_FIELDS
from benchmarks.speed.side_process import SideError, SideProcess


def entries(log):
    return [line.split() for line in log.read_text().splitlines()]


def is_alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def run(tmp_path_factory, importable_workloads):
    """Results of sides of all kinds by name, and what they wrote when they ran. One run, as each is a process."""
    log = tmp_path_factory.mktemp("run") / "log.txt"

    def row(name, workload="Noting", bound=None, **options):
        options = {"name": name, "log": str(log), **options}
        return Row(name, Side(name, f"trivial_workloads:{workload}", options), bound=bound)

    rows = (
        row("good", values=[1.0, 2.25], items=4, seconds=0.2, bound=0.5),
        row("wrong", values=[1.0, 3.0], bound=0.5),
        row("dies", "Dying"),
        row("raises", "Raising"),
        row("prints", "Printing"),
        Row("machine", Side("machine", "trivial_workloads:NotHere")),
        Row("package", Side("package", "trivial_workloads:NotInstalled")),
    )
    reference = row("reference", seconds=0.2).side
    results = measure(Comparison(reference, rows, "item", rounds=2, warm_ups=1))
    return {result["name"]: result for result in results}, entries(log)


def test_sides_take_turns_and_every_other_round_is_turned_round(run):
    _, log = run
    assert [name for name, _ in log] == (
        ["reference", "good", "wrong", "dies", "raises", "prints"]
        + ["prints", "raises", "wrong", "good", "reference"]  # here one died, which does not write
        + ["reference", "good", "wrong", "raises", "prints"]
    )


def test_every_side_keeps_one_process_of_its_own_that_ends(run):
    _, log = run
    pids = {name: {pid for other, pid in log if other == name} for name, _ in log}
    assert all(len(found) == 1 for found in pids.values())
    assert len(set.union(*pids.values())) == len(pids)
    assert not any(is_alive(pid) for _, pid in log)


def test_time_is_per_item_and_taken_inside_the_process(run):
    good = run[0]["good"]
    assert good["reference_seconds"] == pytest.approx(0.2, rel=0.5)
    assert good["ratio_median"] == pytest.approx(4, rel=0.5)
    assert good["ratio_min"] <= good["ratio_median"] <= good["ratio_max"]


def test_result_says_what_was_compared(run):
    good = run[0]["good"]
    assert (good["reference"], good["side"], good["item"], good["rounds"]) == ("reference", "good", "item", 2)
    assert good["notes"]["name"] == "good"
    assert good["reference_notes"]["name"] == "reference"
    assert good["notes"]["peak_memory_bytes"] > 1e6


def test_error_is_the_largest_difference_and_fails_above_its_bound(run):
    good, wrong = run[0]["good"], run[0]["wrong"]
    assert (good["error"], good["status"]) == (0.25, "measured")
    assert (wrong["error"], wrong["status"]) == (1.0, "failed")
    assert wrong["reason"] == "an error of 1 EF points is above the bound of 0.5"
    assert wrong["ratio_median"] > 0


def test_a_side_that_dies_fails_alone_with_its_last_words(run):
    dies = run[0]["dies"]
    assert (dies["status"], dies["ratio_median"]) == ("failed", None)
    assert "dies: the process died in run with status 9" in dies["reason"]
    assert "out of memory, says the kernel" in dies["reason"]


def test_an_error_in_the_results_names_the_side(run):
    assert run[0]["raises"]["status"] == "failed"
    assert "raises failed in values: ValueError: these numbers are broken" in run[0]["raises"]["reason"]


def test_what_libraries_print_is_not_taken_for_an_answer(run):
    assert run[0]["prints"]["status"] == "measured"


def test_a_side_without_its_package_or_machine_is_skipped(run):
    machine, package = run[0]["machine"], run[0]["package"]
    assert (machine["status"], machine["reason"]) == ("skipped", "this machine has no abacus")
    assert package["status"] == "skipped"
    assert "a_package_that_nobody_wrote" in package["reason"]


def test_every_result_has_the_fields_of_the_report(run):
    assert all(set(RESULT_FIELDS) <= result.keys() for result in run[0].values())
    json.dumps(run[0], allow_nan=False)


def test_ratios_are_those_of_single_rounds():
    # By hand: 4/1, 9/3 and 10/2. Of medians it would be 9/2.
    assert ratio_statistics([4.0, 9.0, 10.0], [1.0, 3.0, 2.0]) == {
        "ratio_median": 4.0,
        "ratio_min": 3.0,
        "ratio_max": 5.0,
        "reference_seconds": 9.0,
        "seconds": 2.0,
    }


@pytest.mark.parametrize(
    "values, reason",
    [
        ([1.0], "the reference computed values of shape (2,), this side (1,)"),
        ([1.0, float("nan")], "the error is not a finite number"),
        ([1.0, float("inf")], "the error is not a finite number"),
    ],
)
def test_values_that_cannot_be_compared_are_a_failure(values, reason):
    found = compare_values(Row("a", Side("a", "m:W")), np.array([1.0, 2.0]), np.array(values))
    assert (found["status"], found["error"], found["reason"]) == ("failed", None, reason)


@pytest.mark.slow
def test_interruption_ends_all_processes(row, side, log, monkeypatch):
    def interrupt(seconds):
        if log.exists() and len(entries(log)) == 3:
            # Once: waiting for a process to end sleeps too.
            monkeypatch.undo()
            raise KeyboardInterrupt
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr("benchmarks.speed.alternation.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure(Comparison(side("reference"), (row("a"),), "item", rounds=50))
    assert len(entries(log)) == 3
    assert not any(is_alive(pid) for _, pid in entries(log))


def test_a_reference_that_dies_fails_the_rows(row, side, log):
    (result,) = measure(Comparison(side("reference", "Dying"), (row("a"),), "item", rounds=2))
    assert result["status"] == "failed"
    assert result["reason"].startswith("reference: the process died")
    assert not any(is_alive(pid) for _, pid in entries(log))


def test_threads_are_as_told_and_only_workloads_are_run(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with SideProcess("a", "pathlib:Path", {}, num_threads=3) as process:
        process.prepare()
        with pytest.raises(SideError, match="pathlib:Path is not a workload"):
            process.receive("prepare")
        process.workload = "trivial_workloads:Threads"
        process.prepare()
        process.receive("prepare")
        np.testing.assert_array_equal(process.values(), [3.0])


@pytest.mark.slow
def test_a_worker_whose_parent_is_gone_ends_in_the_middle_of_a_run(log):
    options = {"name": "long", "log": str(log), "seconds": 60.0}
    requests = [{"call": "prepare", "workload": "trivial_workloads:Noting", "options": options}, {"call": "run"}]
    worker = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.worker"], stdin=subprocess.PIPE)
    worker.stdin.write("".join(json.dumps(request) + "\n" for request in requests).encode())
    worker.stdin.flush()
    while not log.exists():
        assert worker.poll() is None
        time.sleep(0.05)
    worker.stdin.close()
    assert worker.wait(timeout=20) == 0
