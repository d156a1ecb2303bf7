r"""Train the encoder of a model to mark the left ventricle in every frame, while it reads the ejection fraction.

    python scripts/teach_outlines.py small_deeper --model runs/small_deeper --simulation_cache runs/simulated \
        --num_train_epochs 8 --output_dir runs/taught --use_cpu true

An ejection fraction is one number for a whole clip; the exact outlines of simulated hearts say for every pixel of
every frame whether it is inside the ventricle. A decoder brings the feature maps of all stages to the size of the
largest, and is thrown away afterwards. What is evaluated and saved is an average of the weights over the last few
hundred steps: the statistics of batch normalisation, of a few batches of 16 clips, are too uncertain by themselves.
Settings are those of `echomen train`. The same command continues a training that was interrupted.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Subset
from transformers import EvalPrediction, Trainer, TrainerCallback, set_seed
from transformers.modeling_outputs import ModelOutput
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from echomen_hf import EchoMENModel, EchoMENVideoProcessor
from echomen_hf.cli.command_line import run_script
from echomen_hf.data.device_clips import with_pixel_values
from echomen_hf.data.epoch_dataset import EpochDataset
from echomen_hf.inference import load_checkpoint
from echomen_hf.losses import squared_error
from echomen_hf.metrics import ef_regression_metrics
from echomen_hf.model.modeling_echomen import EchoMENPreTrainedModel
from echomen_hf.simulation import SimulatedFrames, SimulatedMasks, SimulatedTrainingClips
from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments, SimulationArguments
from echomen_hf.training.allocator import keep_large_blocks
from echomen_hf.training.fitting import forget_calibrations
from echomen_hf.training.recipes import parse_recipe
from echomen_hf.training.trainer import EpochOfDataset
from echomen_hf.training.training_data import load_training_data


CHANNELS = 16  # of the decoder
EF_ERROR = 10.0  # EF points of error that weigh as much as an outline that has nothing in common with the true one
AVERAGE_DECAY = 0.995  # a step
AVERAGE_FILE = "average.safetensors"
SMALLEST_AREA = 1.0  # cells; keeps an empty mask from turning on less than one


class OutlineDecoder(nn.Module):
    """From the feature maps of all stages to a logit for every cell of the largest.

    Args:
        sizes: Channels of every stage.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv3d(size, CHANNELS, 1) for size in sizes)
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(CHANNELS, CHANNELS, (1, 3, 3), padding=(0, 1, 1), bias=False),
                nn.BatchNorm3d(CHANNELS),
                nn.ReLU(inplace=True),
            )
            for _ in sizes[:-1]
        )
        self.head = nn.Conv3d(CHANNELS, 1, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of clips, `(B, T, h, w)`, from the feature maps of their stages."""
        hidden = self.lateral[-1](stages[-1])
        for lateral, mix, stage in reversed(list(zip(self.lateral[:-1], self.mix, stages[:-1], strict=True))):
            hidden = mix(lateral(stage) + F.interpolate(hidden, stage.shape[2:], mode="trilinear"))
        return self.head(hidden)[:, 0]


class OutlineTeacher(EchoMENPreTrainedModel):
    """A model, of which the encoder and the head of stage 1 are trained, and a decoder.

    Args:
        model: Model.
    """

    def __init__(self, model: EchoMENModel) -> None:
        super().__init__(model.config)
        self.model = model
        self.decoder = OutlineDecoder(model.config.hidden_sizes)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor) -> ModelOutput:
        """Read clips and compute the loss.

        Args:
            pixel_values: Clips, `(B, T, C, H, W)`.
            labels: EF in percent, `(B,)`.
            masks: Share of every cell that is inside the ventricle, `(B, T, h, w)`.

        Returns:
            `loss`; `logits`, EF in percent, `(B, 1)`; and `areas` of the outlines and the masks in cells, `(B, T, 2)`.
        """
        outputs = self.model(pixel_values=pixel_values, output_hidden_states=True)
        logits = self.decoder(outputs.hidden_states[1:]).float()  # all stages; the stem comes first
        inside = logits.sigmoid()
        areas = torch.stack([inside.sum((2, 3)), masks.sum((2, 3))], dim=-1)
        loss = outline_loss(logits, masks) + squared_error(outputs.regression, labels) / EF_ERROR**2
        return ModelOutput(loss=loss, logits=outputs.regression[:, None], areas=areas)


def outline_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross entropy, one minus soft Dice, and the errors of the logarithms of areas and of their ratios in a clip.

    Args:
        logits: Above 0 inside the ventricle, float, `(B, T, h, w)`.
        masks: Share of every cell that is inside, `(B, T, h, w)`.

    Returns:
        The loss, `()`.
    """
    inside = logits.sigmoid()
    both, area, true_area = (inside * masks).sum((2, 3)), inside.sum((2, 3)), masks.sum((2, 3))  # (B, T) each
    squares = inside.square().sum((2, 3)) + masks.square().sum((2, 3))
    overlap = (2 * both + SMALLEST_AREA) / (squares + SMALLEST_AREA)
    error = torch.log((area + SMALLEST_AREA) / (true_area + SMALLEST_AREA))
    of_ratios = error - error.mean(dim=1, keepdim=True)  # an EF is a ratio, so an error of all areas alike is none
    cross_entropy = F.binary_cross_entropy_with_logits(logits, masks)
    return cross_entropy + (1 - overlap).mean() + error.abs().mean() + 2 * of_ratios.abs().mean()


class OutlinedClips(EpochDataset):
    """Training clips of simulated videos with their masks in the same window.

    Args:
        videos: Rows of `SimulatedVideos`.
        processor: Video processor.
        frames: Source of the frames.
        crop_padding: As in `TrainingClips`.
        seed: Seed of clips and windows.
    """

    def __init__(
        self,
        videos: Any,
        processor: EchoMENVideoProcessor,
        frames: SimulatedFrames,
        crop_padding: int,
        seed: int,
    ) -> None:
        super().__init__()
        masks = SimulatedMasks(**vars(frames))
        self.images, self.masks = (
            SimulatedTrainingClips(videos, processor, crop_padding=crop_padding, seed=seed, frames=source)
            for source in (frames, masks)
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is shown from now on."""
        self.images.set_epoch(epoch)
        self.masks.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Clip of one video, and `masks`, uint8, `(T, H, W)`, before the window is cut out."""
        return {**self.images[index], "masks": self.masks[index]["frames"]}


@dataclasses.dataclass(frozen=True)
class Collator:
    """Makes batches of `pixel_values`, `labels` and `masks` of `cells` by `cells` shares."""

    cells: int

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch of items of `OutlinedClips`."""
        batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in items[0]}
        shares = torch.linspace(0, 1, 256).expand(len(items), 1, 256)
        masks = with_pixel_values({**batch, "frames": batch["masks"], "grey_levels": shares})["pixel_values"][:, :, 0]
        clips = with_pixel_values(batch)["pixel_values"]
        return {
            "pixel_values": clips,
            "labels": batch["labels"].float(),
            "masks": F.adaptive_avg_pool2d(masks, self.cells),
        }


class AveragingTrainer(Trainer):
    """Trainer that keeps an exponential average of the weights and buffers of a teacher, and evaluates it."""

    def __init__(
        self, teacher: OutlineTeacher, *args: Any, callbacks: Sequence[TrainerCallback] = (), **kwargs: Any
    ) -> None:
        super().__init__(teacher, *args, callbacks=[*callbacks, _Averaging(self)], **kwargs)
        self.teacher = teacher
        self.average = AveragedModel(teacher, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY), use_buffers=True)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the average."""
        self.model = self.average.module
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.model = self.teacher


class _Averaging(TrainerCallback):
    """Updates the average after every step, and keeps it in checkpoints."""

    def __init__(self, trainer: AveragingTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            load_model(self.trainer.average, Path(args.output_dir, f"checkpoint-{state.global_step}", AVERAGE_FILE))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.average.update_parameters(self.trainer.teacher)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        save_model(self.trainer.average, str(Path(args.output_dir, f"checkpoint-{state.global_step}", AVERAGE_FILE)))


def main(arguments: list[str] | None = None) -> None:
    """Train, and save the model without the decoder."""
    data_args, simulation_args, model_args, args = parse_recipe(
        (DataArguments, SimulationArguments, ModelArguments, EchoMENTrainingArguments),
        sys.argv[1:] if arguments is None else arguments,
        prog="teach_outlines.py",
        description=__doc__,
    )
    if model_args.model is None or not simulation_args.simulated_videos:
        raise ValueError("Outlines are taught to a `--model`, on `--simulated_videos`, whose outlines are known.")
    keep_large_blocks(args.keep_large_blocks)
    set_seed(args.seed)
    model, processor = load_checkpoint(model_args.model)
    forget_calibrations(model)
    model.config.prediction_head = "regression"  # experts do not fit an encoder that changes
    data = load_training_data(data_args, simulation_args, args, processor)
    teacher = OutlineTeacher(model).train()
    if args.channels_last:
        teacher.to(memory_format=torch.channels_last_3d)
    args.label_names, args.remove_unused_columns, args.metric_for_best_model = ["labels", "masks"], False, "loss"
    # VAL is shown as it is, without changes.
    plain = SimulatedFrames(
        simulation_args.simulation_profile,
        image_size=model.config.image_size,
        cache=simulation_args.simulation_cache,
    )
    val = OutlinedClips(data.val, processor, plain, 0, args.seed)
    trainer = AveragingTrainer(
        teacher,
        args,
        data_collator=Collator(model.config.image_size // model.config.stem_stride),
        train_dataset=OutlinedClips(
            data.train, processor, cast(SimulatedFrames, data.frames), data_args.crop_padding, args.seed
        ),
        eval_dataset=Subset(val, range(len(val))),  # has no `set_epoch`, which accelerate calls in every evaluation
        compute_metrics=metrics,
        callbacks=[EpochOfDataset()],
    )
    folder = Path(str(args.output_dir))
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    cast(OutlineTeacher, trainer.average.module).model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "stage1").mkdir(exist_ok=True)
    trainer.state.save_to_json(str(folder / "stage1" / TRAINER_STATE_NAME))  # where `echomen train` keeps it


def metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Errors of the ejection fraction, and of the share of the largest area that the smallest has."""
    (ejection_fractions, areas), labels = prediction.predictions, np.asarray(prediction.label_ids[0])
    errors = ef_regression_metrics(np.asarray(ejection_fractions)[:, 0], labels)
    shares = np.asarray(areas).min(axis=1) / np.asarray(areas).max(axis=1)  # (N, 2)
    errors = {name: value for name, value in errors.items() if "mae" in name}
    return {**errors, "area_share_mae": float(np.abs(shares[:, 0] - shares[:, 1]).mean())}


if __name__ == "__main__":
    run_script(main)
