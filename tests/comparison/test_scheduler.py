import io
import os
import signal
import threading
import time

import pytest
from rich.console import Console

from echomen_hf.comparison import CellFolder, select_methods
from echomen_hf.comparison.cells import Cell, make_cells, order_by_dependency
from echomen_hf.comparison.scheduler import Scheduler, default_jobs, default_threads, format_seconds
from echomen_hf.comparison.variants import make_sweep


def names(cells):
    return [(cell.variant.name, cell.seed) for cell in cells]


def test_cells_wait_for_what_they_build_on(make_arguments):
    cells = make_cells(
        [*make_sweep("top_k", make_arguments(), {}), *select_methods(["ablation", "echonet", "echomen"])], [1, 0]
    )
    assert len(cells) == 2 * 8
    ordered = names(order_by_dependency(cells))
    assert sorted(ordered) == sorted(names(cells))
    for name, seed in ordered:
        if name in ("echomen_stage_1_head", "echomen_category_experts", "echomen_expert_top_k_1"):
            assert ordered.index(("echomen", seed)) < ordered.index((name, seed))
    # A table of all methods with one seed exists as early as possible.
    assert [seed for _, seed in ordered] == [1] * 8 + [0] * 8


def test_without_what_it_could_share_a_cell_waits_for_nothing():
    cells = make_cells(select_methods(["ablation"]), [0])
    assert names(order_by_dependency(cells)) == names(cells)


def test_cores_are_divided():
    assert default_threads(1) == len(os.sched_getaffinity(0))
    assert default_threads(10_000) == 1
    assert default_jobs() >= 1


@pytest.mark.parametrize(("seconds", "text"), [(12.4, "12 s"), (150, "2 min"), (3600 * 2 + 300, "2 h 05 min")])
def test_time_that_is_left(seconds, text):
    assert format_seconds(seconds) == text


@pytest.fixture
def make_scheduler(make_settings, tmp_path):
    def make(jobs, settings=None):
        shown = io.StringIO()
        console = Console(file=shown, width=200)
        scheduler = Scheduler(settings or make_settings(), tmp_path / "out", 22, jobs=jobs, console=console)
        return scheduler, shown

    return make


def test_work_is_estimated_in_steps(make_scheduler):
    scheduler, _ = make_scheduler(0)
    echomen, head = (Cell(variant, 0) for variant in reversed(select_methods(["echomen", "echomen_stage_1_head"])))
    assert scheduler.work_of(echomen) == scheduler.work_of(head) == 4
    folder = CellFolder.of(scheduler.results, echomen)
    folder.path.mkdir(parents=True)
    folder.metrics.write_text("{}")
    assert scheduler.work_of(head) == 1


def test_progress_counts_cells_and_names_those_that_failed(make_scheduler, monkeypatch):
    scheduler, shown = make_scheduler(0)
    good, bad = make_cells(select_methods(["sqinv", "echonet"]), [3])

    def run_cell(cell, settings, results, keep_checkpoints):
        folder = CellFolder.of(results, cell)
        folder.path.mkdir(parents=True)
        if cell == bad:
            raise ValueError("bad luck")
        folder.metrics.write_text("{}")

    monkeypatch.setattr("echomen_hf.comparison.scheduler.run_cell", run_cell)
    assert scheduler.run([bad, good]) == [bad]
    text = shown.getvalue()
    assert "1/2  echonet, seed 3: FAILED, see" in text
    assert "2/2  sqinv, seed 3: finished" in text
    assert "2 of 2 cells" in text and "8/8" in text.replace(" ", "")
    assert "ValueError: bad luck" in CellFolder.of(scheduler.results, bad).error.read_text()


@pytest.mark.slow
def test_processes(make_scheduler, make_settings, finished, monkeypatch):
    """Cells in processes have the results of cells in this one; one that is killed is recorded."""
    scheduler, shown = make_scheduler(2)
    cells = make_cells(select_methods(["echonet", "echomen"]), [0])
    processes, start = {}, Scheduler._start

    def kill_second():
        while not CellFolder.of(scheduler.results, cells[1]).latest_step():
            time.sleep(0.02)
        os.kill(processes[cells[1]].pid, signal.SIGKILL)

    def noting_start(self, cell, place):
        processes[cell] = start(self, cell, place)
        return processes[cell]

    killer = threading.Thread(target=kill_second, daemon=True)
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "_start", noting_start)
        killer.start()
        failed = scheduler.run(cells)
    assert not killer.is_alive() and failed == [cells[1]]
    assert "ended with status -9" in CellFolder.of(scheduler.results, cells[1]).error.read_text()
    assert scheduler.run([cells[1]]) == []
    for cell in cells:
        own, other = CellFolder.of(scheduler.results, cell), CellFolder.of(finished, cell)
        assert own.predictions.read_bytes() == other.predictions.read_bytes()
        assert "train_runtime" in own.log.read_text()


@pytest.mark.slow
def test_processes_end_with_their_parent(make_settings, finished, tmp_path):
    """A parent that is killed leaves no process behind that would go on writing."""
    import subprocess
    import sys

    program = f"""
import multiprocessing, pathlib, pickle, sys
from echomen_hf.comparison.scheduler import Scheduler
if __name__ == "__main__":
    settings, cell = pickle.loads(pathlib.Path({str(tmp_path / "cell.pkl")!r}).read_bytes())
    Scheduler(settings, pathlib.Path({str(tmp_path / "out")!r}), 22, jobs=1).run([cell])
"""
    import pickle

    (tmp_path / "program.py").write_text(program)
    cell = Cell(select_methods(["echonet"])[0], 0)
    settings = make_settings(num_train_epochs=10_000)
    (tmp_path / "cell.pkl").write_bytes(pickle.dumps((settings, cell)))
    folder = CellFolder(tmp_path / "out", "echonet", 0)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while folder.latest_step() == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert folder.latest_step() > 0
    finally:
        parent.kill()
        parent.wait()
    time.sleep(3)
    reached = folder.latest_step()
    time.sleep(3)
    assert folder.latest_step() == reached
