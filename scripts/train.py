"""Train EchoMEN on a folder in EchoNet-Dynamic's layout: stage 1, stage 2 or both.

Settings are flags, or a YAML or JSON recipe as the first argument, whose values flags override:

    accelerate launch scripts/train.py scripts/recipes/paper.yaml --data_dir EchoNet-Dynamic --output_dir runs/paper

The same command continues a run that was interrupted, in whichever stage it stopped.
"""

import hashlib
from pathlib import Path

from transformers import set_seed
from transformers.utils import logging

from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENVideoProcessor, load_echonet_dynamic
from echomen_hf.command_line import run_script
from echomen_hf.data import FrameCache, pixel_statistics, raise_for_problems, validate_videos
from echomen_hf.data.echonet_layout import FILE_LIST_NAME
from echomen_hf.inference import load_checkpoint
from echomen_hf.recipes import parse_recipe
from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments, fit
from echomen_hf.training.two_stage import is_finished


def main(arguments: list[str] | None = None) -> None:
    """Parse, load, train.

    Args:
        arguments: Command line without the name of the program.
    """
    data_args, model_args, args = parse_recipe(
        (DataArguments, ModelArguments, EchoMENTrainingArguments),
        arguments,
        defaults={"stage": "both"},
        description=__doc__,
    )
    # Bars for every file written or read would bury those of the training.
    logging.disable_progress_bar()
    with args.main_process_first(desc="loading the data set"):
        videos = load_echonet_dynamic(data_args.data_dir, require_tracings=data_args.require_tracings)
    for split, name in (("train", "TRAIN"), ("validation", "VAL")):
        if split not in videos:
            raise ValueError(
                f"{data_args.data_dir} has no {split} videos, which training needs; mark some as {name} in the Split "
                "column of its FileList.csv."
            )
    train, val = videos["train"], videos["validation"]
    print(f"{data_args.data_dir}: {len(train)} training and {len(val)} validation videos", flush=True)
    if data_args.validate_data != "none" and args.process_index == 0:
        for split in (train, val):
            raise_for_problems(validate_videos(split, level=data_args.validate_data))

    if args.stage == "2" and model_args.model is None and not is_finished(Path(str(args.output_dir)) / "stage1"):
        raise ValueError(
            "Stage 2 trains experts on an encoder that stage 1 has trained: give the output folder of stage 1 as "
            "`--output_dir`, or a trained model as `--model`."
        )
    set_seed(args.seed)
    if model_args.model is not None:
        model, processor = load_checkpoint(model_args.model)
    else:
        config = EchoMENConfig(**(model_args.model_config or {}))
        if model_args.backbone_checkpoint is not None:
            model = EchoMENModel.from_backbone_checkpoint(model_args.backbone_checkpoint, config)
        else:
            model = EchoMENModel(config)
        processor = EchoMENVideoProcessor.for_model(config)
    frames = None
    if data_args.frame_cache is not None:
        with args.main_process_first(desc="caching frames"):
            frames = FrameCache.build(data_args.frame_cache, [*train, *val], processor)
    if model_args.model is None:
        mean, std = pixel_statistics(train, processor, data_args.statistics_videos, args.seed, frames)
        processor.image_mean, processor.image_std = [mean], [std]
        print(f"Pixels of the training split: mean {mean:.2f}, standard deviation {std:.2f}", flush=True)

    fit(
        model,
        processor,
        train,
        val,
        args,
        crop_padding=data_args.crop_padding,
        eval_protocol=data_args.eval_protocol,
        frames=frames,
        run_description={
            # Content and not location: a run may continue where its data were moved to.
            "file_list_sha256": hashlib.sha256((Path(data_args.data_dir) / FILE_LIST_NAME).read_bytes()).hexdigest(),
            "model": model_args.model,
            "backbone_checkpoint": model_args.backbone_checkpoint,
        },
    )
    if args.process_index == 0:
        print(f"Model, video processor and logs are in {args.output_dir}", flush=True)


if __name__ == "__main__":
    run_script(main)
