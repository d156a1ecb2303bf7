"""Measure the cost of training switches, and whether they change the result.

Time and memory of a training step at full size, each combination in a separate process:

    python -m benchmarks.training_switches cost --output runs/switch_cost

Error on VAL after a whole training on SYNTHETIC data, compared with the noise between seeds:

    python -m benchmarks.training_switches accuracy --data_dir runs/demo/data --output runs/switch_accuracy

Both write `table.md` and `results.json`.
"""

import argparse
import json
import sys
from pathlib import Path

import psutil
import torch

from benchmarks.training_switches.step_cost import StepSetting
from benchmarks.training_switches.tables import (
    SWITCHES,
    accuracy_of_switches,
    accuracy_table,
    cost_of_switches,
    cost_table,
)
from echomen_hf.cli.command_line import run_script


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    cost = kinds.add_parser("cost", help="Time and memory of a step.")
    cost.add_argument("--batch_size", type=int, nargs="+", default=[4, 20], help="Videos per optimiser step.")
    cost.add_argument("--num_views", type=int, default=2, help="Crops of each video.")
    cost.add_argument("--num_steps", type=int, default=3, help="Steps timed, after one that is not.")
    cost.add_argument("--model_config", type=json.loads, default={}, help="EchoMENConfig fields as JSON.")
    cost.add_argument("--memory_limit", type=float, help="GiB a process may allocate; 90 %% of those free if unset.")
    accuracy = kinds.add_parser("accuracy", help="Error after a whole training.")
    accuracy.add_argument("--data_dir", type=Path, required=True, help="Folder in EchoNet-Dynamic's layout.")
    accuracy.add_argument("--recipe", default="demo", help="Recipe, a file or a name.")
    accuracy.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3], help="Seeds of the trainings.")
    accuracy.add_argument("--batch_size", type=int, default=16, help="Videos per optimiser step.")
    accuracy.add_argument("--jobs", type=int, default=1, help="Trainings at a time.")
    accuracy.add_argument("--train_flags", nargs=argparse.REMAINDER, default=[], help="Last: flags of echomen train.")
    for kind in (cost, accuracy):
        kind.add_argument("--output", type=Path, required=True, help="Folder for tables and runs.")
        kind.add_argument("--switches", nargs="+", choices=SWITCHES, default=list(SWITCHES), help="What to compare.")
    args = parser.parse_args(arguments)

    args.output.mkdir(parents=True, exist_ok=True)
    switches = {title: SWITCHES[title] for title in dict.fromkeys(["none", *args.switches])}
    if args.kind == "cost":
        limit = args.memory_limit * 2**30 if args.memory_limit else 0.9 * psutil.virtual_memory().available
        base = StepSetting(
            0,
            args.num_views,
            args.model_config,
            num_steps=args.num_steps,
            num_threads=torch.get_num_threads(),
            memory_limit=int(limit),
        )
        rows = cost_of_switches(args.batch_size, base, switches)
        table = cost_table(rows)
    else:
        command = [sys.executable, "-m", "echomen_hf.cli", "train", args.recipe, "--data_dir", args.data_dir]
        command = [str(word) for word in [*command, "--frame_cache", args.output / "frames", *args.train_flags]]
        rows = accuracy_of_switches(command, switches, args.seed, args.batch_size, args.output, args.jobs)
        table = accuracy_table(rows)
    (args.output / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    (args.output / "table.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\ntable.md and results.json are in {args.output}")
    return 0


if __name__ == "__main__":
    run_script(main)
