r"""Compare methods on a folder in EchoNet-Dynamic's layout: the paper's tables, with several seeds and tests.

    python scripts/compare_methods.py --recipe scripts/recipes/compare.yaml --data_dir EchoNet-Dynamic \
        --output runs/comparison --methods all --seeds 0 1 2

The same command continues a run that was interrupted. Any setting of scripts/train.py may follow as a flag, and then
overrides the recipe. The status is 1 if a cell, one method with one seed, has failed; the others are computed even so.
"""

import argparse
import sys
from pathlib import Path

from transformers.utils import logging

from echomen_hf.cli.command_line import run_script
from echomen_hf.comparison import SWEEPS, CellFolder, read_settings, run_comparison
from echomen_hf.comparison.scheduler import default_jobs, default_threads


def main(arguments: list[str] | None = None) -> int:
    """Parse, compare, print the tables.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", type=Path, help="Settings of scripts/train.py that all methods share.")
    parser.add_argument("--data_dir", help="Folder in EchoNet-Dynamic's layout.")
    parser.add_argument("--output", required=True, type=Path, help="Results folder.")
    parser.add_argument("--methods", nargs="+", help="Methods or groups (all, paper, rival, newer, ablation).")
    parser.add_argument("--sweep", nargs="+", default=[], help=f"Options of EchoMEN to vary: {', '.join(SWEEPS)}.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Seeds of the trainings.")
    parser.add_argument("--schedule", choices=["equal", "published"], default="equal", help="Steps of each method.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, windows, center or a number.")
    parser.add_argument("--frame_cache", help="Folder for decoded frames; without, videos are decoded in every epoch.")
    parser.add_argument("--bootstrap_samples", type=int, default=2000, help="Resamples of intervals and p-values.")
    parser.add_argument("--jobs", type=int, help="Cells at a time: one per GPU or core if unset, 0: in this process.")
    parser.add_argument("--threads", type=int, help="CPU threads per cell; the cores divided by the jobs if unset.")
    parser.add_argument("--keep_checkpoints", action="store_true", help="Keep the checkpoints of finished cells.")
    parser.add_argument("--published", action="store_true", help="Put the paper's numbers below the tables.")
    args, flags = parser.parse_known_args(arguments)

    logging.disable_progress_bar()
    for name in ("data_dir", "frame_cache"):
        if (value := getattr(args, name)) is not None:
            flags += [f"--{name}", value]
    settings = read_settings(
        args.recipe, flags, protocol=args.protocol, schedule=args.schedule, bootstrap_samples=args.bootstrap_samples
    )
    jobs = default_jobs() if args.jobs is None else args.jobs
    outcome = run_comparison(
        settings,
        args.methods or ([] if args.sweep else ["all"]),
        args.seeds,
        args.output,
        sweeps=[name for text in args.sweep for name in text.split(",")],
        jobs=jobs,
        threads=default_threads(jobs) if args.threads is None else args.threads,
        keep_checkpoints=args.keep_checkpoints,
        published=args.published,
    )
    for path in outcome.tables:
        print(path.read_text(encoding="utf-8"))
    print(f"Tables, figures, results.csv and the cells are in {args.output}")
    for cell in outcome.failed:
        print(f"error: {cell.name} failed: {CellFolder.of(args.output, cell).error}", file=sys.stderr)
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    run_script(main)
