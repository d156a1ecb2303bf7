"""The command `echomen train`."""

from __future__ import annotations

import inspect
from pathlib import Path

import typer

from .options import keep_inputs


def main(context: typer.Context) -> None:
    """Train EchoMEN: stage 1, stage 2 or both.

    The videos are a data set in any layout of load_videos, or simulated. Settings are flags, or a recipe as the first
    argument, whose values flags override. A recipe is a YAML or JSON file, or the name of one that comes with the
    package: demo, paper, paper_24gb, paper_ddp, release, pediatric, echonet_weights_stage2, compare, small,
    small_brightness, small_deeper or small_experts.

        echomen train paper --data_dir EchoNet-Dynamic --output_dir runs/paper

    For several GPUs: accelerate launch -m echomen_hf.cli train, or accelerate launch scripts/train.py in a clone.
    The same command continues a run that was interrupted, in whichever stage it stopped.
    """
    from transformers import set_seed
    from transformers.utils import logging

    from .. import EchoMENConfig, EchoMENModel, EchoMENVideoProcessor
    from ..data import pixel_statistics
    from ..data.clip_vectors import encoder_checksum
    from ..evaluation.interval_calibration import calibrate_model, store_calibration
    from ..inference import load_checkpoint
    from ..runs.run_folder import describe_initial_weights, is_finished
    from ..training import DataArguments, EchoMENTrainingArguments, ModelArguments, SimulationArguments, fit
    from ..training.recipes import parse_recipe
    from ..training.training_data import load_training_data

    data_args, simulation_args, model_args, args = parse_recipe(
        (DataArguments, SimulationArguments, ModelArguments, EchoMENTrainingArguments),
        context.args,
        defaults={"stage": "both"},
        prog=context.command_path,
        description=inspect.getdoc(main),
    )
    keep_inputs(str(args.output_dir), model_args.model, model_args.encoder)
    # Progress bars for every file written or read would bury those of the training.
    logging.disable_progress_bar()
    has_weights = model_args.model is not None or model_args.encoder is not None
    has_encoder = has_weights or data_args.embeddings is not None
    if args.stage == "2" and not has_encoder and not is_finished(Path(str(args.output_dir)) / "stage1"):
        raise ValueError(
            "Stage 2 trains experts on an encoder that stage 1 has trained: give the output folder of stage 1 as "
            "`--output_dir`, a trained model as `--model`, a pre-trained encoder as `--encoder`, or vectors as "
            "`--embeddings`."
        )
    set_seed(args.seed)
    data = None
    if data_args.embeddings is not None:
        data = load_training_data(data_args, simulation_args, args)
    if model_args.model is not None:
        model, processor = load_checkpoint(model_args.model, headless=args.stage != "2" or data is not None)
    elif model_args.encoder is not None:
        model = EchoMENModel.from_encoder(model_args.encoder, **(model_args.model_config or {}))
        processor = EchoMENVideoProcessor.for_encoder(model_args.encoder, model.config)
    else:
        fields = dict(model_args.model_config or {})
        if data is not None and data.vectors is not None:
            fields.setdefault("vector_size", data.vectors.size)
        config = EchoMENConfig(**fields)
        if model_args.backbone_checkpoint is not None:
            model = EchoMENModel.from_backbone_checkpoint(model_args.backbone_checkpoint, config)
        else:
            model = EchoMENModel(config)
        processor = EchoMENVideoProcessor.for_model(config)
    if data is None:
        data = load_training_data(data_args, simulation_args, args, processor)
    origin = data_args.data_dir or data_args.embeddings or f"simulation ({simulation_args.simulation_profile})"
    print(f"{origin}: {len(data.train)} training and {len(data.val)} validation videos", flush=True)
    if not has_encoder:
        mean, std = pixel_statistics(data.train, processor, data_args.statistics_videos, args.seed, data.frames)
        processor.image_mean, processor.image_std = [mean], [std]
        print(f"Pixels of the training split: mean {mean:.2f}, standard deviation {std:.2f}", flush=True)

    if not 0 <= data_args.interval_coverage < 1:
        raise ValueError(f"`interval_coverage` is a share such as 0.9, or 0, got {data_args.interval_coverage}.")
    trained = fit(
        model,
        processor,
        data.train,
        data.val,
        args,
        crop_padding=data_args.crop_padding,
        eval_protocol=data_args.eval_protocol,
        frames=data.frames,
        make_clips=data.make_clips,
        vectors=data.vectors,
        run_description={
            **data.description,
            **describe_initial_weights(
                model_args.model,
                model_args.backbone_checkpoint,
                model_args.encoder,
                None if model_args.encoder is None else encoder_checksum(model),
            ),
        },
    )
    if args.process_index == 0:
        if data_args.interval_coverage:
            calibrate_model(
                trained.to(args.device),
                processor,
                data.val,
                coverage=data_args.interval_coverage,
                batch_size=args.per_device_eval_batch_size,
                num_workers=args.dataloader_num_workers,
                progress=not args.disable_tqdm,
                frames=data.frames,
                vectors=data.vectors,
            )
            store_calibration(str(args.output_dir), trained)
        print(f"Model, video processor and logs are in {args.output_dir}", flush=True)
