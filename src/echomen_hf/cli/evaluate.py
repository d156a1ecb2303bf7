"""The command `echomen evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import BatchSize, Device, Model, NumWorkers, choose_device, takes_layout


if TYPE_CHECKING:
    from ..data.layouts.registry import DataSet


@takes_layout
def main(
    model: Model,
    output: Annotated[Path, typer.Option("--output", help="Folder for the report.")],
    data_dir: Annotated[
        list[str] | None,
        typer.Option("--data_dir", help="Folder of a data set, or a table of videos; several may follow."),
    ] = None,
    further: Annotated[
        list[str] | None, typer.Argument(metavar="DATA_DIR", help="Further data sets.", show_default=False)
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            "--embeddings",
            help="File of vectors, as `echomen embed` writes it, to predict from instead of the videos; without "
            "--data_dir, labels and splits are its columns EF and Split.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to evaluate: train, validation or test.")] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="Clips per video: all, everyN, windows, center, or N. Defaults to windows; vectors have their own.",
        ),
    ] = None,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 1,
    bootstrap_samples: Annotated[
        int, typer.Option("--bootstrap_samples", help="Resamples of the intervals; 0 for no intervals.")
    ] = 1000,
    confidence_level: Annotated[
        float, typer.Option("--confidence_level", help="Coverage of the bootstrap intervals.")
    ] = 0.95,
    share_windows: Annotated[
        bool | None,
        typer.Option(
            "--share_windows/--no-share_windows",
            help="Do the work that overlapping clips of all or everyN have in common once. Defaults to yes on CPUs.",
        ),
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 42,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Evaluate a model on data sets: metrics and figures.

    \b
    echomen evaluate --data_dir EchoNet-Dynamic --model runs/paper --output runs/paper/test
    echomen evaluate --model runs/paper --output runs/paper/external --data_dir CAMUS MIMIC hospital.csv

    report.md has the errors by data set, heart-failure category and subgroup, with intervals by patient where patients
    are known, the coverage of the prediction intervals, and whether the model has seen the videos in training. For
    each data set, metrics.json holds every metric with its interval for the ensemble, and without intervals for a
    constant guess, the stage-1 head, each expert, their mean and the oracle; predictions.csv and the paper's figures
    lie beside it, and cardiobench.csv for CardioBench. With several data sets, each has a folder of its own, and takes
    the options of layouts that are its own.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from ..data import is_synthetic, load_rows
    from ..data.clip_vectors import read_clip_vectors, refuse_layout_options
    from ..data.layouts.registry import LAYOUTS, DataSet
    from ..evaluation import comparison_table, evaluate_split, save_report
    from ..evaluation.external_test import REPORT_FILE, TestSet, write_external_report
    from ..evaluation.split_evaluation import find_split, interval_table
    from ..inference import load_checkpoint
    from ..inference.windows.shared_windows import windows_of_model
    from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL
    from ..runs.files import file_checksum
    from ..runs.training_list import count_seen
    from ..training import allocator

    if embeddings is not None and (protocol is not None or share_windows is not None):
        raise ValueError(
            "Vectors are those of clips that are chosen already: leave out --protocol and --share_windows, and choose "
            "the clips by `echomen embed --protocol`."
        )
    protocol = protocol or DEFAULT_PROTOCOL
    allocator.keep_large_blocks()
    logging.disable_progress_bar()
    set_seed(seed)
    # Before hours of predicting, and not after them.
    output.mkdir(parents=True, exist_ok=True)
    loaded, processor = load_checkpoint(model, exports=True)
    folders = [*(data_dir or []), *(further or [])]
    vectors = None if embeddings is None else read_clip_vectors(embeddings)
    if vectors is None and not folders:
        raise ValueError("Give the data set to evaluate on as --data_dir, or vectors as --embeddings.")
    if vectors is not None and len(folders) > 1:
        raise ValueError("A file of vectors is evaluated with one data set; leave out the others.")
    if not folders:
        refuse_layout_options(map("--{}".format, layout_options))
    if embeddings is not None and vectors is not None and not folders:
        data = DataSet(embeddings.absolute(), LAYOUTS["table"], [], [], file_checksum(embeddings))
        found, videos = {embeddings.stem: (str(embeddings), data)}, {embeddings.stem: vectors.rows()}
    else:
        found = read_data_sets(folders, layout_options)
        videos = {name: load_rows(data_set) for name, (_, data_set) in found.items()}
    for splits in videos.values():
        find_split(splits, split)
    loaded.to(choose_device(device))
    windows = None if vectors is not None else windows_of_model(loaded, protocol, batch_size, share_windows)
    sets = []
    for name, splits in videos.items():
        evaluation = evaluate_split(
            loaded,
            processor,
            splits,
            split=split,
            protocol=protocol,
            batch_size=batch_size,
            num_workers=num_workers,
            bootstrap_samples=bootstrap_samples,
            confidence_level=confidence_level,
            seed=seed,
            windows=windows,
            vectors=vectors,
        )
        given, data_set = found[name]
        folder = output / name if len(found) > 1 else output
        save_report(
            evaluation,
            folder,
            model=model,
            data_dir=given,
            data_checksum=data_set.checksum,
            synthetic=is_synthetic(given),
        )
        each = TestSet.of(
            name,
            evaluation,
            splits,
            layout=data_set.layout.name,
            left_out=data_set.left_out,
            seen=None,
            synthetic=is_synthetic(given),
        )
        sets.append(replace(each, seen=count_seen(model, list(each.videos))))
    report = write_external_report(sets, output, model)
    if len(sets) > 1:
        print(report)
        print(f"{REPORT_FILE} and a folder per data set are in {output}")
        return
    print(comparison_table(evaluation.comparison))
    if evaluation.intervals is not None:
        print(f"\nPrediction intervals:\n\n{interval_table(evaluation.intervals)}\n")
    print(f"{REPORT_FILE}, metrics.json, predictions.csv and figures are in {output}")


def read_data_sets(folders: list[str], layout_options: dict[str, Any]) -> dict[str, tuple[str, DataSet]]:
    """Read data sets, with the folder of each, by name; each takes those options that its layout has."""
    from ..data import read_data_set
    from ..data.layouts.registry import find_layout

    if len(folders) > 1 and "split_file" in layout_options:
        raise ValueError("--split_file is the file of one data set; evaluate that one alone.")
    taken = {}
    for folder in folders:
        layout = find_layout(Path(folder).expanduser().absolute(), layout_options.get("layout"))
        taken[folder] = {"layout", "split_by", "split_file"} | layout.options
    if len(folders) > 1 and (unknown := sorted(layout_options.keys() - set().union(*taken.values()))):
        raise ValueError(f"No layout of these data sets has the option {', '.join(unknown)}.")
    found: dict[str, tuple[str, DataSet]] = {}
    for folder, names in taken.items():
        own = {name: value for name, value in layout_options.items() if name in names or len(folders) == 1}
        path = Path(folder).resolve()
        name = path.stem if path.is_file() else path.name
        while name in found:
            name += "_2"
        found[name] = folder, read_data_set(folder, **own)
    return found
