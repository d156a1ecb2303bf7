"""The command `echomen compare`."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import typer


def main(context: typer.Context) -> int:
    """Compare methods: the paper's tables, over seeds.

        echomen compare --recipe compare --data_dir EchoNet-Dynamic --output runs/comparison --methods all

    The results are tables with significance tests, figures and every cell: one method trained with one seed on a
    data set. The same command continues a run that was interrupted. Any setting of echomen train, such as --layout,
    may follow as a flag, and then overrides the recipe. The status is 1 if a cell has failed; the others are computed
    even so.
    """
    from transformers.utils import logging

    from ..comparison import SWEEPS, CellFolder, read_settings, run_comparison
    from ..comparison.scheduler import default_jobs, default_threads

    parser = argparse.ArgumentParser(
        prog=context.command_path,
        description=inspect.getdoc(main),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", help="Settings of echomen train that all methods share: a file, or a name.")
    parser.add_argument("--data_dir", help="Folder of the data set, or a table of videos.")
    parser.add_argument("--output", required=True, type=Path, help="Results folder.")
    parser.add_argument("--methods", nargs="+", help="Methods or groups (all, paper, rival, newer, ablation).")
    parser.add_argument("--sweep", nargs="+", default=[], help=f"Options of EchoMEN to vary: {', '.join(SWEEPS)}.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Seeds of the trainings.")
    parser.add_argument("--schedule", choices=["equal", "published"], default="equal", help="Steps of each method.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, windows, center or a number.")
    parser.add_argument(
        "--frame_cache", help="Folder for decoded frames. Defaults to none: videos are decoded in every epoch."
    )
    parser.add_argument("--bootstrap_samples", type=int, default=2000, help="Resamples of intervals and p-values.")
    parser.add_argument(
        "--jobs", type=int, help="Cells at a time; 0: in this process. Defaults to one per GPU or processor core."
    )
    parser.add_argument(
        "--threads", type=int, help="CPU threads per cell. Defaults to the processor cores divided by the jobs."
    )
    parser.add_argument("--keep_checkpoints", action="store_true", help="Keep the checkpoints of finished cells.")
    parser.add_argument("--published", action="store_true", help="Put the paper's numbers below the tables.")
    args, flags = parser.parse_known_args(context.args)

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
