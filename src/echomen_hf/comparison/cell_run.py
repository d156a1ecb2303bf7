"""Computation of one cell: training, choice of the epoch on VAL, prediction of TEST."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from transformers.utils import logging

from ..data import FrameCache, is_synthetic, load_rows, pixel_statistics
from ..data.frame_cache import frame_description
from ..evaluation.report import write_metrics_json, write_predictions_csv
from ..inference import VideoPrediction, predict_split
from ..methods import fit_method, trained_parameter_count
from ..metrics import ef_regression_metrics
from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import write_json
from ..runs.run_folder import STAGE_FINISHED_FILE, describe_initial_weights, is_finished
from .cells import Cell, CellFolder, cell_settings
from .record import git_commit
from .settings import ComparisonSettings


__all__ = ["run_cell"]


def run_cell(cell: Cell, settings: ComparisonSettings, results: Path, *, keep_checkpoints: bool = False) -> None:
    """Compute a cell, or resume one that was interrupted. A finished cell is left as it is."""
    folder = CellFolder.of(results, cell)
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock, timeout=0):
            if not folder.is_finished:
                folder.error.unlink(missing_ok=True)
                compute_cell(cell, settings, folder)
            if not keep_checkpoints:
                folder.remove_checkpoints()
    except Timeout:
        raise RuntimeError(f"Another process is computing {folder.path}. Wait for it, or stop it.") from None


def compute_cell(cell: Cell, settings: ComparisonSettings, folder: CellFolder) -> None:
    """Train a method, predict VAL and TEST, and write the results."""
    logging.disable_progress_bar()
    data_dir = settings.data_dir
    videos = load_rows(settings.read_data_set())
    with stopwatch(folder.path / "training_seconds.json") as clock:
        model, processor = make_model(cell, settings, folder, videos)
    predict_started = time.perf_counter()
    splits = {split: predict(model, processor, videos[split], settings) for split in ("validation", "test")}
    predict_seconds = time.perf_counter() - predict_started
    metrics = {
        split: ef_regression_metrics(
            [prediction.ejection_fraction for prediction in predictions],
            videos[split]["ejection_fraction"],
            bootstrap_samples=settings.bootstrap_samples if split == "test" else 0,
            seed=cell.seed,
        )
        for split, predictions in splits.items()
    }
    write_predictions_csv(
        folder.path / "validation_predictions.csv", splits["validation"], videos["validation"]["ejection_fraction"]
    )
    write_predictions_csv(folder.predictions, splits["test"], videos["test"]["ejection_fraction"])
    write_json(
        folder.cost,
        {
            "parameters": model.num_parameters(),
            "trained_parameters": trained_parameter_count(cell.variant.method, model)
            if cell.variant.is_trained
            else 0,
            **count_steps(folder.run),
            "training_seconds": clock["seconds"],
            "training_attempts": clock["attempts"],
            "stage_1_of": stage_1_source(cell, folder),
            "prediction_seconds": predict_seconds,
        },
    )
    write_metrics_json(
        folder.metrics,
        metrics["test"],
        protocol=settings.protocol,
        split="test",
        seed=cell.seed,
        model=folder.run,
        data_dir=data_dir,
        data_checksum=settings.read_data_set().checksum,
        confidence_level=0.95 if settings.bootstrap_samples else None,
        bootstrap_samples=settings.bootstrap_samples,
        extra={
            "cell_settings": cell_settings(cell, settings),
            "git_commit": git_commit(),
            "method": cell.variant.name,
            "synthetic_data": is_synthetic(data_dir),
            "title": cell.variant.method.title,
            "validation": metrics["validation"],
        },
    )


def make_model(
    cell: Cell, settings: ComparisonSettings, folder: CellFolder, videos: Any
) -> tuple[EchoMENModel, EchoMENVideoProcessor]:
    """Train the model of a cell, or load the finished one of which the cell changes a setting."""
    method, seed = cell.variant.method, cell.seed
    needed = None if cell.variant.needs is None else CellFolder(folder.results, cell.variant.needs, seed)
    if not cell.variant.is_trained:
        if needed is None or not needed.is_finished:
            raise FileNotFoundError(
                f"{cell.name} changes a setting of a finished {cell.variant.needs}, which is missing."
            )
        finished = EchoMENModel.from_pretrained(needed.run, **method.model_defaults).eval()
        return finished, EchoMENVideoProcessor.from_pretrained(needed.run)

    fields = settings.model_fields(method)
    config = method.make_config(fields)
    processor = method.processor_class.for_model(config)
    train, val = videos["train"], videos["validation"]
    frames = None
    if settings.data.frame_cache is not None:
        place = frame_cache_folder(Path(settings.data.frame_cache), processor, settings)
        frames = FrameCache.build(place, [*train, *val], processor)
    mean, std = pixel_statistics(train, processor, settings.data.statistics_videos, seed, frames)
    processor.image_mean, processor.image_std = [mean], [std]

    stage_1 = None if needed is None or not is_finished(needed.run / "stage1") else needed.run / "stage1"
    if stage_1 is not None and config.num_experts != EchoMENConfig(**settings.model_config).num_experts:
        # A stage 1 can only be reused if it has as many experts as this method.
        initial, stage_1 = EchoMENModel.from_pretrained(stage_1), None
        method = replace(method, training_defaults={**method.training_defaults, "stage": "2"})
    else:
        initial = pre_trained(cell, settings)
    model = fit_method(
        method,
        train,
        val,
        settings.training.replace(output_dir=str(folder.run), seed=seed, disable_tqdm=True),
        model_config=fields,
        processor=processor,
        options=settings.options(method),
        initial_weights=initial,
        published_schedule=settings.schedule == "published",
        stage_1=stage_1,
        crop_padding=settings.data.crop_padding,
        eval_protocol=settings.data.eval_protocol,
        frames=frames,
        run_description={
            "file_list_sha256": settings.read_data_set().checksum,
            **describe_initial_weights(backbone_checkpoint=settings.backbone_checkpoint),
        },
    )
    return model, processor


def pre_trained(cell: Cell, settings: ComparisonSettings) -> EchoMENModel | None:
    """Load the pre-trained weights, unless the method has another encoder than EchoMEN."""
    if settings.backbone_checkpoint is None or not cell.variant.method.shares_encoder:
        return None
    shared = EchoMENConfig(**settings.model_config)
    return EchoMENModel.from_backbone_checkpoint(settings.backbone_checkpoint, shared)


def frame_cache_folder(root: Path, processor: EchoMENVideoProcessor, settings: ComparisonSettings) -> Path:
    """Folder of the cached frames: the root for EchoMEN's frame size, a subfolder for any other."""
    own = frame_description(processor)
    shared = frame_description(EchoMENVideoProcessor.for_model(EchoMENConfig(**settings.model_config)))
    return root if own == shared else root / f"{own['height']}x{own['width']}"


def predict(
    model: EchoMENModel, processor: EchoMENVideoProcessor, videos: Any, settings: ComparisonSettings
) -> list[VideoPrediction]:
    """Predict the videos of a split in their order."""
    args = settings.training
    return predict_split(
        model.to(args.device),
        processor,
        videos,
        settings.protocol,
        args.per_device_eval_batch_size,
        args.dataloader_num_workers,
        progress=False,
    )


def count_steps(run: Path) -> dict[str, int]:
    """Number of optimiser steps of each stage, 0 for a stage that was not run here."""
    steps = {}
    for stage in (1, 2):
        path = run / f"stage{stage}" / STAGE_FINISHED_FILE
        steps[f"stage_{stage}_steps"] = (
            int(json.loads(path.read_text(encoding="utf-8"))["global_step"]) if path.is_file() else 0
        )
    return steps


def stage_1_source(cell: Cell, folder: CellFolder) -> str | None:
    """Name of the method whose stage 1 was used, `None` if the cell trained its own."""
    return None if (folder.run / "stage1").is_dir() else cell.variant.needs


@contextmanager
def stopwatch(path: Path) -> Iterator[dict[str, Any]]:
    """Measure `seconds` and count `attempts`, kept in a file. The seconds of a killed process are lost."""
    clock: dict[str, Any] = {"seconds": 0.0, "attempts": 0}
    if path.is_file():
        clock |= json.loads(path.read_text(encoding="utf-8"))
    clock["attempts"] += 1
    write_json(path, clock)
    started = time.perf_counter()
    try:
        yield clock
    finally:
        clock["seconds"] = float(np.round(clock["seconds"] + time.perf_counter() - started, 3))
        write_json(path, clock)
