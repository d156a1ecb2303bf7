"""Training of any method with the same trainer, data and choice on VAL, and loading of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, set_seed

from ..data.clip_dataset import FrameSource
from ..inference.checkpoint import load_checkpoint, load_checkpoint_of, read_model_type
from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.processes import is_main_process
from ..runs.run_folder import is_finished
from ..training import EchoMENTrainingArguments, fit
from ..training.fitting import claim_output_dir
from .method import Method
from .registry import get_method, list_methods


__all__ = ["fit_method", "initial_model", "load_method_checkpoint"]


def fit_method(
    method: Method | str,
    train_videos: Sequence[dict[str, Any]],
    val_videos: Sequence[dict[str, Any]],
    args: EchoMENTrainingArguments,
    *,
    model_config: Mapping[str, Any] | None = None,
    processor: EchoMENVideoProcessor | None = None,
    options: Mapping[str, Any] | None = None,
    initial_weights: EchoMENModel | None = None,
    published_schedule: bool = False,
    stage_1: str | Path | None = None,
    crop_padding: int = 12,
    eval_protocol: str = "center",
    frames: FrameSource | None = None,
    run_description: Mapping[str, Any] | None = None,
) -> EchoMENModel:
    """Train a method, continuing where an earlier call with the same settings stopped.

    Two methods with the same seed start from the same encoder and see the same videos in the same order.

    Args:
        method: Method, or its name.
        train_videos: Rows of the training split as `load_videos` gives them.
        val_videos: Rows of the validation split, on which the best epoch is chosen.
        args: Arguments that all methods of a comparison share; see `Method.training_arguments` for what a method
            changes. `args.output_dir` is the folder of this run.
        model_config: Configuration fields, see `Method.make_config`.
        processor: Video processor with the pixel statistics of the training split. Defaults to a new one,
            `method.processor_class.for_model(config)`, with the clip rule of the method's network.
        options: Options of the method's loss, see `Method.options`.
        initial_weights: Model from which every weight is taken that the method's model has too, such as one with a
            pre-trained encoder.
        published_schedule: See `Method.training_arguments`.
        stage_1: Folder of a finished stage 1 of the method that `Method.stage_1_of` names, with the same seed, data
            and settings, to take instead of training it again.
        crop_padding: Largest random shift of a training clip in pixels.
        eval_protocol: Clips per video on the validation split, see `protocol_starts`.
        frames: Source of frames. Defaults to the videos' files.
        run_description: Further settings that a resumed run must match, such as the initial weights.

    Returns:
        The best model in evaluation mode, also in `args.output_dir`, without the state that only training needed: a
        loss-side rival is an `EchoMENModel`.

    Raises:
        ValueError: If the method, an option or a configuration field is unknown, or the output folder holds another
            run.
        FileNotFoundError: If there is no finished stage 1 in the folder that is to provide it.
    """
    method = get_method(method) if isinstance(method, str) else method
    args = method.training_arguments(args, published_schedule=published_schedule)
    make_trainer = method.make_trainer(options)
    if stage_1 is not None:
        model = model_after_stage_1(method, Path(stage_1))
    else:
        model = initial_model(method, args.seed, model_config, initial_weights)
    if processor is None:
        processor = method.processor_class.for_model(model.config)
    description = {**(run_description or {}), "method": method.name, "options": {**method.options, **(options or {})}}
    if stage_1 is not None and args.stage == "1":
        claim_output_dir(Path(str(args.output_dir)), model, processor, args, description)
        trained = model
    else:
        trained = fit(
            model,
            processor,
            train_videos,
            val_videos,
            args if stage_1 is None else args.replace(stage="2"),
            crop_padding=crop_padding,
            eval_protocol=eval_protocol,
            frames=frames,
            run_description=description,
            make_trainer=make_trainer,
            make_clips=method.training_clips,
        )
    final = without_training_state(trained).eval()
    if is_main_process():
        final.save_pretrained(str(args.output_dir))
        processor.save_pretrained(str(args.output_dir))
    return final


def initial_model(
    method: Method,
    seed: int,
    model_config: Mapping[str, Any] | None = None,
    initial_weights: EchoMENModel | None = None,
) -> EchoMENModel:
    """Make the model that a method's training starts from.

    The parts that methods share begin with the same weights for the same seed.
    """
    if initial_weights is not None and not method.shares_encoder:
        raise ValueError(
            f"Method {method.name!r} has a network of its own, which takes no weights of EchoMEN's encoder: leave "
            "`initial_weights` out."
        )
    if initial_weights is None and method.shares_encoder:
        # Otherwise one weight fewer in a head would shift the random numbers of all others.
        set_seed(seed)
        known = {field.name for field in fields(EchoMENConfig)}
        shared = {name: value for name, value in (model_config or {}).items() if name in known}
        initial_weights = EchoMENModel(EchoMENConfig(**shared))
    set_seed(seed)
    model: Any = method.model_class(method.make_config(model_config))
    if initial_weights is not None:
        own = model.state_dict()
        given = {
            name: value
            for name, value in initial_weights.state_dict().items()
            if name in own and own[name].shape == value.shape
        }
        missing = [name for name in own if name.startswith("encoder.") and name not in given]
        if missing:
            raise ValueError(
                f"The initial weights do not fit the encoder of method {method.name!r}: {len(missing)} of its tensors "
                f"are absent or of another shape, such as {missing[0]}. Give both the same configuration."
            )
        model.load_state_dict(given, strict=False)
    return model


def model_after_stage_1(method: Method, folder: Path) -> EchoMENModel:
    """Load the finished stage 1 of another method, with the configuration of this one."""
    if method.stage_1_of is None:
        raise ValueError(f"Method {method.name!r} has a stage 1 of its own; leave `stage_1` out.")
    if not is_finished(folder):
        raise FileNotFoundError(f"{folder} holds no finished stage 1; it must be that of a {method.stage_1_of!r} run.")
    model: Any = method.model_class.from_pretrained(folder, **method.model_defaults)
    return model


def without_training_state(model: EchoMENModel) -> EchoMENModel:
    """Remove the state that a loss-side rival has only while it is trained."""
    if type(model) is EchoMENModel or model.config_class is not EchoMENModel.config_class:
        return model
    plain = EchoMENModel(model.config)
    kept = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in kept})
    return plain


def load_method_checkpoint(folder: str | Path) -> tuple[PreTrainedModel, EchoMENVideoProcessor]:
    """Load the result of `fit_method`, in evaluation mode, and the video processor stored beside it.

    Both are what `predict_split` and `Predictor` accept.

    Args:
        folder: Folder of the run.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no model, one that no method makes, or one whose files do not fit each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no model folder {folder}.")
    model_type = read_model_type(folder)
    if model_type == EchoMENConfig.model_type:
        # Also a loss-side rival, which training leaves as a plain EchoMENModel.
        return load_checkpoint(folder)
    for method in map(get_method, list_methods()):
        model_class: Any = method.model_class
        if model_class.config_class.model_type == model_type:
            return load_checkpoint_of(folder, model_class, method.processor_class)
    raise ValueError(
        f"{folder} holds a model of type {model_type!r}, which no method makes; give the folder that `fit_method` "
        "wrote its result to."
    )
