import json

import pytest

from benchmarks.training_switches import __main__ as training_switches


TINY = {"depths": [1, 1], "hidden_sizes": [4, 8], "num_channels": 1, "num_frames": 8, "image_size": 32}


@pytest.mark.slow
def test_cost_in_small(tmp_path, capsys):
    arguments = ["--batch_size", "4", "--num_steps", "1", "--model_config", json.dumps(TINY)]
    command = ["cost", "--output", str(tmp_path), *arguments, "--switches", "all five"]
    assert training_switches.main(command) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["title"] for row in rows] == ["none", "all five"]
    assert all(len(row["step_seconds"]) == 1 and row["speed"] > 0 and not row["failure"] for row in rows)
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("| Batch | Switches |")
    assert table in capsys.readouterr().out


@pytest.mark.slow
def test_accuracy_in_small(recipe, echonet_dir, tmp_path):
    where = ["--data_dir", str(echonet_dir), "--recipe", str(recipe), "--output", str(tmp_path)]
    what = ["--seed", "1", "2", "--switches", "activation_checkpointing", "--batch_size", "8"]
    flags = ["--train_flags", "--stage", "1", "--num_train_epochs", "2", "--report_to", "none"]
    assert training_switches.main(["accuracy", *where, *what, *flags]) == 0
    reference, checkpointed = json.loads((tmp_path / "results.json").read_text())
    assert reference["mae"][0] != reference["mae"][1]
    assert checkpointed["mae"] == reference["mae"]  # it changes no number
    assert checkpointed["within_noise"]
