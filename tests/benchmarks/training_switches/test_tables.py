import json
import math
import sys

import pytest

from benchmarks.training_switches import tables
from benchmarks.training_switches.step_cost import StepCost, StepSetting
from benchmarks.training_switches.tables import (
    accuracy_of_switches,
    accuracy_table,
    cost_of_switches,
    cost_table,
    final_mae,
)


GIB = 2**30


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.fixture
def costs(monkeypatch):
    """Costs that measurements find, by switches and batch size."""
    found = {
        ("", 4): StepCost([8.0, 10.0, 9.0], 6 * GIB, GIB),
        ("bf16", 4): StepCost([3.0, 3.0, 3.0], 3 * GIB, GIB),
        ("", 20): StepCost([], 9 * GIB, GIB, "needs more memory than 20.0 GiB"),
        ("bf16", 20): StepCost([15.0], 12 * GIB, GIB),
    }
    monkeypatch.setattr(
        tables,
        "measure_in_new_process",
        lambda setting: found["".join(setting.switches), setting.batch_size],
    )


def test_costs_are_relative_to_no_switches_of_the_same_batch(costs):
    rows = cost_of_switches([4, 20], StepSetting(0), switches={"none": {}, "bf16": {"bf16": True}})
    assert [(row["batch_size"], row["title"], row["speed"], row["memory"]) for row in rows] == [
        (4, "none", 1.0, 1.0),
        (4, "bf16", 3.0, 0.5),
        (20, "none", None, None),
        (20, "bf16", None, None),
    ]
    assert cells(cost_table(rows))[2:] == [
        ["4", "none", "9.00", "1.00", "6.00", "1.00"],
        ["4", "bf16", "3.00", "3.00", "3.00", "0.50"],
        ["20", "none", "needs more memory than 20.0 GiB", "", "", ""],
        ["20", "bf16", "15.00", "", "12.00", ""],
    ]


# Stands for scripts/train.py: its error is 4, 5 and 6 by seed, 1 more in bfloat16 and 7 more without layout.
TRAIN = """
import json, pathlib, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if flags["--seed"] == "99":
    sys.exit("error: no such seed") if flags["--bf16"] == "True" else sys.exit(2)
error = 3 + int(flags["--seed"]) + (flags["--bf16"] == "True") + 7 * (flags["--gradient_accumulation_steps"] == "4")
for stage in (1, 2):
    folder = pathlib.Path(flags["--output_dir"]) / f"stage{stage}"
    folder.mkdir(parents=True)
    history = [{"step": 10, "eval_mae": error - 1}, {"step": 20, "loss": 3}, {"step": 20, "eval_mae": error}]
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": 20, "log_history": history}))
(folder / "flags.json").write_text(json.dumps(flags))
"""


@pytest.mark.parametrize("jobs", [1, 3])
def test_errors_are_compared_with_the_noise_of_seeds(tmp_path, jobs):
    switches = {"none": {}, "bf16": {"bf16": True}, "accumulation": {"gradient_accumulation_steps": 4}}
    rows = accuracy_of_switches([sys.executable, "-c", TRAIN], switches, [1, 2, 3], 16, tmp_path, jobs=jobs)
    assert [row["mae"] for row in rows] == [[4, 5, 6], [5, 6, 7], [11, 12, 13]]
    assert [row["difference"] for row in rows] == [0, 1, 7]
    assert rows[1]["noise"] == pytest.approx(2 * math.sqrt(2 / 3))  # the seeds' standard deviation is 1
    assert [row["within_noise"] for row in rows] == [True, True, False]
    assert cells(accuracy_table(rows))[3] == ["bf16", "5.00", "6.00", "7.00", "6.00", "+1.00", "± 1.63"]
    flags = json.loads((tmp_path / "02-seed1/stage2/flags.json").read_text())
    assert flags["--per_device_train_batch_size"] == "4"
    assert flags["--channels_last"] == "False"  # off, whatever the recipe says
    assert flags["--keep_large_blocks"] == "False"


def test_noise_of_seeds_is_that_of_all_combinations_together(monkeypatch, tmp_path):
    errors = iter([4.0, 4.0, 5.0, 9.0])  # alike by chance, and far apart
    monkeypatch.setattr(tables, "final_mae", lambda folder: next(errors))
    command = [sys.executable, "-c", TRAIN]
    rows = accuracy_of_switches(command, {"none": {}, "bf16": {"bf16": True}}, [1, 2], 16, tmp_path)
    assert rows[0]["noise"] == rows[1]["noise"] == pytest.approx(2 * math.sqrt((0 + 8) / 2))


def test_error_is_that_of_the_kept_epoch(tmp_path):
    (tmp_path / "stage1").mkdir()
    history = [{"step": step, "eval_mae": error} for step, error in ((10, 7.0), (20, 5.0), (30, 6.0))]
    state = {"best_global_step": 20, "log_history": history}
    (tmp_path / "stage1/trainer_state.json").write_text(json.dumps(state))
    assert final_mae(tmp_path) == 5.0


def test_training_that_refuses_its_settings(tmp_path):
    with pytest.raises(ValueError, match="ended with status 2"):
        accuracy_of_switches([sys.executable, "-c", TRAIN], {"none": {}}, [99], 16, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_starts_no_further_training(tmp_path, monkeypatch, error):
    def interrupted(folder):
        raise error

    monkeypatch.setattr(tables, "final_mae", interrupted)
    command = [sys.executable, "-c", TRAIN]
    with pytest.raises(error):
        accuracy_of_switches(command, {"none": {}, "bf16": {"bf16": True}}, [1, 2, 3], 16, tmp_path)
    assert len(list(tmp_path.iterdir())) <= 2  # the failed one, and at most one that had begun
    with pytest.raises(ValueError, match="jobs, the number of trainings at a time"):
        accuracy_of_switches(command, {"none": {}}, [1], 16, tmp_path, jobs=0)


def test_training_that_fails(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)status 1.*no such seed"):
        accuracy_of_switches([sys.executable, "-c", TRAIN], {"bf16": {"bf16": True}}, [99], 16, tmp_path)
