"""Publish a trained model on the Hub: weights, processor, code, model card, metrics and figures, in one commit.

    python scripts/push_to_hub.py --model runs/paper --repo me/echomen --dry_run

A dry run prints every file and its size, and what the model card cannot tell, without asking the Hub anything. No
optimiser states or other pickles are published, and no predictions, which repeat labels of the data set.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from transformers.utils import logging

from echomen_hf.cli.command_line import run_script
from echomen_hf.hub import listing, publish_folder, read_run, stage_repository, stage_space
from echomen_hf.hub.publishing import resolve_repository
from echomen_hf.inference import load_checkpoint


def main(arguments: list[str] | None = None) -> None:
    """Put the repository together, and publish it.

    Args:
        arguments: Command line without the name of the program.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="Output folder of training.")
    parser.add_argument("--repo", required=True, help="Id on the Hub, such as owner/name.")
    parser.add_argument("--private", action="store_true", help="Make a new repository private.")
    parser.add_argument("--dry_run", action="store_true", help="Print what would be published, and do nothing.")
    parser.add_argument("--space", action="store_true", help="Publish a Space of the same id too, to try the model.")
    parser.add_argument("--evaluation", type=Path, help="Output folder of evaluate.py; looked for beside the model.")
    parser.add_argument("--data_dir", type=Path, help="Training data, which the card describes but that stay here.")
    parser.add_argument("--card", type=Path, help="Model card to publish instead of a generated one.")
    parser.add_argument("--output", type=Path, help="New folder in which to keep what is published, to look at.")
    parser.add_argument("--commit_message", default="Upload EchoMEN model", help="Title of the commit.")
    args = parser.parse_args(arguments)

    logging.disable_progress_bar()
    if args.output is not None and args.output.exists():
        raise ValueError(f"{args.output} exists already; name a new folder as `--output`.")
    private = True if args.private else None
    repo_types = ["model", "space"] if args.space else ["model"]
    repo_id = args.repo
    if not args.dry_run:
        for repo_type in repo_types:
            repo_id, _ = resolve_repository(repo_id, repo_type=repo_type, private=private)
    with ExitStack() as stack:
        root = args.output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="echomen_hf_")))
        for repo_type in repo_types:
            (root / repo_type).mkdir(parents=True)
        model, processor = load_checkpoint(args.model)
        record = read_run(args.model, args.evaluation, args.data_dir)
        stage_repository(root / "model", model, processor, record, repo_id=repo_id, source=args.model, card=args.card)
        warnings = list(record.warnings)
        if args.space:
            warnings += stage_space(root / "space", repo_id, synthetic=record.training_data == "synthetic")
        for repo_type in repo_types:
            print_files(f"{repo_type} {repo_id}", listing(root / repo_type))
        for warning in warnings:
            print(f"warning: {warning}")
        if args.dry_run:
            print("Dry run: nothing was published.")
            return
        for repo_type in repo_types:
            commit = publish_folder(
                root / repo_type, repo_id, repo_type=repo_type, private=private, commit_message=args.commit_message
            )
            print(f"Published {commit.repo_url} ({commit.oid[:8]})")


def print_files(title: str, files: dict[str, int]) -> None:
    """Print a list of files.

    Args:
        title: What they are.
        files: Size in bytes by path.
    """
    table = Table(Column("file", overflow="fold"), Column("size", justify="right"), title=title, title_justify="left")
    for name, size in files.items():
        table.add_row(name, decimal(size))
    table.add_section()
    table.add_row(f"{len(files)} files", decimal(sum(files.values())))
    Console().print(table)


if __name__ == "__main__":
    run_script(main)
