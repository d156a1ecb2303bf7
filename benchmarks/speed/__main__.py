"""Measure the speed of this package against a reference, and the loss of accuracy.

    python -m benchmarks.speed --output runs/benchmark

Each result compares two ways to do the same work, in processes of their own that run in turns, and the numbers they
compute. A result whose error is above its bound fails, and with it the command; one that lacks an optional package
(pip install 'echomen-hf[benchmark]') is skipped. benchmark.json and benchmark.md are written to the output folder.

The network has its full size and random weights. What a lower precision costs is measured on a trained checkpoint:
the one of `make demo`, unless --model and --data_dir name another.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.speed.report import markdown_table, save_report, update_documentation
from benchmarks.speed.run import run_benchmark
from benchmarks.speed.suite import FULL, QUICK
from echomen_hf.cli.command_line import run_script
from echomen_hf.model.configuration_echomen import EchoMENConfig


PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="Folder for the report.")
    parser.add_argument("--quick", action="store_true", help="Fewer rounds and results, in two minutes.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Names of the results to measure.")
    parser.add_argument("--model", type=Path, help="Trained checkpoint to measure accuracy on.")
    parser.add_argument("--data_dir", type=Path, help="Its videos, in EchoNet-Dynamic's layout.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of weights, clips and simulated videos.")
    parser.add_argument("--write_docs", action="store_true", help="Write the results into docs/performance.md.")
    args = parser.parse_args(arguments)
    if args.write_docs and args.quick:
        raise ValueError("The documentation shows no quick runs: leave out --quick.")

    # Fail before an hour of measuring, not after it.
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="echomen_benchmark_") as folder:
        report = run_benchmark(
            Path(folder),
            effort=QUICK if args.quick else FULL,
            only=args.only,
            model=args.model,
            data_dir=args.data_dir,
            seed=args.seed,
        )
    save_report(args.output, report)
    if args.write_docs:
        update_documentation(PAGE, report, EchoMENConfig(), is_whole=args.only is None)
    print(markdown_table(report))
    print(f"benchmark.json and benchmark.md are in {args.output}")
    return int(any(result["status"] == "failed" for result in report["results"]))


if __name__ == "__main__":
    run_script(main)
