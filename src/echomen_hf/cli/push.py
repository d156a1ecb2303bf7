"""The command `echomen push`."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .options import ModelFolder


def main(
    model: ModelFolder,
    repo: Annotated[str, typer.Option("--repo", help="Id on the Hub, such as owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Print what would be published, and do nothing.")] = False,
    space: Annotated[
        bool, typer.Option("--space", help="Publish a Space of the same id too, to try the model.")
    ] = False,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", help="Output folder of echomen evaluate. Defaults to one beside the model."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data_dir", help="Training data, for the card to describe; they stay here.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="Model card to publish instead of a generated one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="New folder in which to keep what is published, to look at.")
    ] = None,
    commit_message: Annotated[
        str, typer.Option("--commit_message", help="Title of the commit.")
    ] = "Upload EchoMEN model",
) -> None:
    """Publish a model on the Hub, with its card.

    \b
    echomen push --model runs/paper --repo me/echomen --dry_run

    Weights, video processor, code, model card, metrics and figures are published in one commit. A dry run prints
    every file and its size, and what the model card cannot tell, without asking the Hub anything. No optimiser states
    or other pickles are published, and no predictions, which repeat labels of the data set.
    """
    from transformers.utils import logging

    from ..hub import listing, publish_folder, read_run, stage_repository, stage_space
    from ..hub.publishing import resolve_repository
    from ..inference import load_checkpoint

    logging.disable_progress_bar()
    if output is not None and output.exists():
        raise ValueError(f"{output} exists already; name a new folder as `--output`.")
    private_or_unset = True if private else None
    repo_types = ["model", "space"] if space else ["model"]
    repo_id = repo
    if not dry_run:
        for repo_type in repo_types:
            repo_id, _ = resolve_repository(repo_id, repo_type=repo_type, private=private_or_unset)
    with ExitStack() as stack:
        root = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="echomen_hf_")))
        for repo_type in repo_types:
            (root / repo_type).mkdir(parents=True)
        loaded, processor = load_checkpoint(model)
        record = read_run(model, evaluation, data_dir)
        stage_repository(root / "model", loaded, processor, record, repo_id=repo_id, source=model, card=card)
        warnings = list(record.warnings)
        if space:
            warnings += stage_space(root / "space", repo_id, synthetic=record.training_data == "synthetic")
        for repo_type in repo_types:
            print_files(f"{repo_type} {repo_id}", listing(root / repo_type))
        for warning in warnings:
            print(f"warning: {warning}")
        if dry_run:
            print("Dry run: nothing was published.")
            return
        for repo_type in repo_types:
            commit = publish_folder(
                root / repo_type,
                repo_id,
                repo_type=repo_type,
                private=private_or_unset,
                commit_message=commit_message,
            )
            print(f"Published {commit.repo_url} ({commit.oid[:8]})")


def print_files(title: str, files: dict[str, int]) -> None:
    """Print files and their sizes in bytes as a table."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Column, Table

    table = Table(Column("file", overflow="fold"), Column("size", justify="right"), title=title, title_justify="left")
    for name, size in files.items():
        table.add_row(name, decimal(size))
    table.add_section()
    table.add_row(f"{len(files)} files", decimal(sum(files.values())))
    Console().print(table)
