"""Training of stage 1, then of stage 2 on its best encoder, resumable at any point."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from torch import nn
from transformers import EvalPrediction, PreTrainedConfig, set_seed
from transformers.utils import logging

from ..data.clip_dataset import EvaluationClips, FrameSource, TrainingClips
from ..data.clip_vectors import ClipVectors
from ..model.clip_sampling_echomen import parse_protocol
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.compared_arguments import compared_arguments
from ..runs.processes import is_main_process
from ..runs.run_folder import claim_run, is_finished, last_complete_checkpoint
from ..runs.training_list import write_training_list
from .allocator import keep_large_blocks
from .arguments import EchoMENTrainingArguments
from .embeddings import EvaluationEmbeddings, TrainingEmbeddings, embed_for_stage_2
from .encoder_training import require_part
from .processes import require_shared_folder
from .trainer import EchoMENTrainer, per_video_metrics


__all__ = ["fit", "fit_stage"]

logger = logging.get_logger(__name__)

EMBEDDINGS_FOLDER = "embeddings"
"""Embeddings of clips, in the folder of stage 2."""

CALIBRATIONS = ("interval_calibration", "recalibration")
"""Fields of a configuration that belong to the weights they were made for."""

COMPARED_ARGUMENTS = compared_arguments(field.name for field in fields(EchoMENTrainingArguments))
"""Arguments that a resumed run must match."""


def fit(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    train_videos: Sequence[dict[str, Any]],
    val_videos: Sequence[dict[str, Any]],
    args: EchoMENTrainingArguments,
    *,
    crop_padding: int = 12,
    eval_protocol: str = "center",
    frames: FrameSource | None = None,
    run_description: dict[str, Any] | None = None,
    make_trainer: Callable[..., EchoMENTrainer] = EchoMENTrainer,
    make_clips: Callable[..., TrainingClips] = TrainingClips,
    vectors: ClipVectors | None = None,
) -> EchoMENModel:
    """Train the stages one after the other, continuing where an earlier call with the same settings stopped.

    `args.output_dir` receives `stage1/` and `stage2/`, each with its checkpoints, its best model and a log, and at its
    top the final model, ready for `from_pretrained`.

    Args:
        model: Model with the initial weights. Stage 2 alone takes its encoder from here, unless the output folder
            holds a finished stage 1.
        processor: Video processor, saved beside every checkpoint.
        train_videos: Rows of the training split as `load_videos` gives them.
        val_videos: Rows of the validation split, on which the best epoch is chosen.
        args: Arguments, with the stages to run in `args.stage`.
        crop_padding: Largest random shift of a training clip in pixels.
        eval_protocol: Clips per video on the validation split, see `protocol_starts`.
        frames: Source of frames, such as a `FrameCache` of both splits. Defaults to the videos' files.
        run_description: Further settings that a resumed run must match, such as the initial weights.
        make_trainer: Class of the trainer, or a function that makes one.
        make_clips: Class of the training clips, or a function that makes them.
        vectors: Vectors of the clips of both splits, on which the model is trained instead of the videos, of which
            then only names and labels are needed. Stage 1 trains its adapter.

    Returns:
        The best model of the last stage that is finished, in evaluation mode.

    Raises:
        ValueError: If the output folder holds a run with other settings.
    """
    keep_large_blocks(args.keep_large_blocks)
    if 2 in args.stages and args.expert_solver == "least_squares":
        require_solvable(model, args, has_embeddings=args.embedding_draws > 0 or vectors is not None)
    if 1 in args.stages and vectors is None and hasattr(model, "encoder"):
        require_part(cast(nn.Module, model.encoder), args.train_encoder)
    output_dir = Path(str(args.output_dir))
    require_shared_folder(output_dir)
    training: dict[int, TrainingClips | TrainingEmbeddings]
    evaluation: EvaluationClips | EvaluationEmbeddings
    if vectors is not None:
        require_fitting_vectors(model, args, vectors)
        eval_protocol = vectors.protocol
        training = {
            stage: TrainingEmbeddings.of_vectors(vectors, train_videos, args.num_views if stage == 1 else 1)
            for stage in args.stages
        }
        evaluation = EvaluationEmbeddings.of_vectors(vectors, val_videos)
    else:
        evaluation = EvaluationClips(val_videos, processor, parse_protocol(eval_protocol), frames)
        training = {
            stage: make_clips(
                train_videos, processor, args.num_views if stage == 1 else 1, crop_padding, args.seed + stage, frames
            )
            for stage in args.stages
        }
    for stage in args.stages:
        require_metric(args.for_stage(stage, str(output_dir)).metric_for_best_model, evaluation)
    description = {
        **(run_description or {}),
        "crop_padding": crop_padding,
        "eval_protocol": parse_protocol(eval_protocol),
        "metric_for_best_model": args.chosen_metric,
        "num_processes": args.world_size,
    }
    claim_output_dir(output_dir, model, processor, args, description)
    if is_main_process():
        write_training_list(output_dir, (train_videos, val_videos), model.name_or_path or None)
    forget_calibrations(model)
    warn_about_labels(training[args.stages[0]].ejection_fractions, evaluation.labels.tolist())
    if args.stages == (2,) and is_finished(output_dir / "stage1"):
        logger.warning(f"Stage 2 starts from the result of stage 1 in {output_dir / 'stage1'}.")
        model = type(model).from_pretrained(output_dir / "stage1")
    for stage, clips in training.items():
        stage_args = args.for_stage(stage, str(output_dir / f"stage{stage}"))
        model = fit_stage(model, processor, clips, evaluation, stage_args, make_trainer)
    if is_finished(output_dir / "stage2"):
        # Running stage 1 again must not replace the final model.
        model = type(model).from_pretrained(output_dir / "stage2")
    if is_main_process():
        model.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
    return model.eval()


def fit_stage(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    train_dataset: TrainingClips | TrainingEmbeddings,
    eval_dataset: EvaluationClips | EvaluationEmbeddings,
    args: EchoMENTrainingArguments,
    make_trainer: Callable[..., EchoMENTrainer] = EchoMENTrainer,
) -> EchoMENModel:
    """Train one stage, or load its result if it is finished, or continue from its last checkpoint.

    Args:
        model: Model with the weights that the stage starts from.
        processor: Video processor.
        train_dataset: Training clips, or their embeddings for stage 2.
        eval_dataset: Validation clips, likewise.
        args: Arguments of this stage, see `EchoMENTrainingArguments.for_stage`.
        make_trainer: Class of the trainer, or a function that makes one.
    """
    folder = Path(str(args.output_dir))
    if is_finished(folder):
        logger.warning(f"Stage {args.stage} is finished already; taking its model from {folder}.")
        return type(model).from_pretrained(folder)
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is not None:
        logger.warning(f"Stage {args.stage} continues from {checkpoint}.")
    # The random numbers of a stage must not depend on whether the one before it ran in this process.
    set_seed(args.seed)
    training, evaluation = train_dataset, eval_dataset
    has_clips = isinstance(training, TrainingClips) and isinstance(evaluation, EvaluationClips)
    if args.stage == "2" and args.embedding_draws and has_clips:
        wait = PartialState().wait_for_everyone
        training, evaluation = embed_for_stage_2(
            model,
            cast(TrainingClips, training),
            cast(EvaluationClips, evaluation),
            args,
            folder / EMBEDDINGS_FOLDER,
            wait,
        )
    if isinstance(training, TrainingEmbeddings):
        # Reading a row of memory in another process would cost more than it saves.
        args = args.replace(dataloader_num_workers=0, dataloader_persistent_workers=False)
    trainer = make_trainer(
        model=model, args=args, train_dataset=training, eval_dataset=evaluation, processing_class=processor
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
    return type(model).from_pretrained(folder)


def require_fitting_vectors(model: EchoMENModel, args: EchoMENTrainingArguments, vectors: ClipVectors) -> None:
    """Refuse vectors that the model, or the stage, cannot be trained on."""
    if 1 in args.stages and model.config.adapter_size is None:
        raise ValueError(
            "On vectors, stage 1 trains an adapter, which the model does not have: set `--stage 2`, or give a new "
            "model an adapter by `adapter_size` in `--model_config`."
        )
    if vectors.size != model.config.embedding_size:
        raise ValueError(
            f"The vectors in {vectors.name} have {vectors.size} numbers, and the model takes in "
            f"{model.config.embedding_size}: give those that its encoder made, or leave out `--model`, `--encoder` "
            "and `vector_size` to train heads alone."
        )
    vectors.require_encoder_of(model)


def require_metric(name: str | None, evaluation: EvaluationClips | EvaluationEmbeddings) -> None:
    """Refuse a metric for the best epoch that the validation split does not give, before hours of training."""
    if name is None:
        return
    labels = evaluation.labels
    perfect = EvalPrediction(predictions=labels[evaluation.video_index], label_ids=labels[evaluation.video_index])
    known = {"loss", *per_video_metrics(evaluation)(perfect)}
    if name.removeprefix("eval_") not in known:
        raise ValueError(
            f"The best epoch cannot be chosen by {name!r}: the validation split gives {', '.join(sorted(known))}. "
            "The errors of a heart-failure category, and the balanced one, need videos of it in VAL."
        )


def require_solvable(model: EchoMENModel, args: EchoMENTrainingArguments, has_embeddings: bool) -> None:
    """Refuse experts in closed form that stage 2 could not have, before hours of stage 1."""
    if not has_embeddings:
        raise ValueError("`expert_solver: least_squares` solves experts from embeddings: set `embedding_draws`.")
    if model.config.expert_aggregation != "aggregator":
        raise ValueError(
            "With experts in closed form and no aggregator, stage 2 would have nothing to train: set `expert_solver` "
            "to gradient."
        )


def claim_output_dir(
    output_dir: Path,
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    args: EchoMENTrainingArguments,
    description: dict[str, Any],
) -> None:
    """Record the settings of a run, or refuse those that differ from the run that the folder already holds."""
    inherited = {field.name for field in fields(PreTrainedConfig)}
    set_by_training = {"prediction_head", "expert_bin_width", "expert_min_count", "usual_distance", *CALIBRATIONS}
    own = {field.name for field in fields(model.config)} - inherited - set_by_training
    now = {
        **{f"model.{name}": described(getattr(model.config, name)) for name in own},
        **{f"processor.{k}": v for k, v in processor.to_dict().items() if k != "auto_map"},
        **{f"training.{k}": v for k, v in args.to_dict().items() if k in COMPARED_ARGUMENTS},
        **{f"run.{k}": v for k, v in description.items()},
    }
    # An argument that a run does not know is younger than the run, which had what is now its default.
    claim_run(output_dir, now, default_settings(model, now))


def described(value: Any) -> Any:
    """Describe a field of a configuration, which may be a configuration itself, without versions of libraries."""
    if not isinstance(value, PreTrainedConfig):
        return value
    return {name: each for name, each in value.to_dict().items() if name not in ("transformers_version", "dtype")}


def forget_calibrations(model: Any) -> None:
    """Drop what was calibrated for the initial weights of a model, which does not hold for the trained ones."""
    for name in CALIBRATIONS:
        if hasattr(model.config, name):
            setattr(model.config, name, None)
    if hasattr(model, "set_training_distribution"):
        model.set_training_distribution(None)


def default_settings(model: EchoMENModel, known: Iterable[str]) -> dict[str, Any]:
    """Find the defaults, by name, of those settings of run.json that have one."""
    prefixes: tuple[tuple[str, Any], ...] = (("model", type(model.config)), ("training", EchoMENTrainingArguments))
    defaults = {
        f"{prefix}.{field.name}": field.default
        for prefix, kind in prefixes
        for field in fields(kind)
        if field.default is not MISSING
    }
    return {name: json.loads(json.dumps(defaults[name], default=str)) for name in known if name in defaults}


def warn_about_labels(train_labels: list[float], val_labels: list[float]) -> None:
    """Warn of splits whose labels are all the same."""
    for split, labels in (("training", train_labels), ("validation", val_labels)):
        if min(labels) == max(labels):
            logger.warning(
                f"Every video of the {split} split has the same ejection fraction ({labels[0]:g} %): sample weights "
                "are equal, label distances are zero, and nothing but that constant can be learnt."
            )
