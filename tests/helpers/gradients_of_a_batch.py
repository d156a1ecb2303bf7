"""The gradients of both stages for a batch of 8 videos, shared among the processes that ask for them.

In double precision, so that the order of sums does not matter; in single precision a unit at the kink of its ReLU
could fall on either side. Normalisation layers use their stored statistics here: those of half a batch differ
from those of the whole by design.
"""

from pathlib import Path

import torch
import torch.distributed as dist

from echomen_hf import (
    EchoMENModel,
    EchoMENTrainer,
    EchoMENTrainingArguments,
    EchoMENVideoProcessor,
    load_echonet_dynamic,
)
from echomen_hf.data import TrainingClips, collate_clips, with_pixel_values


def gradients_of_a_batch(data_dir: str, folder: Path, stage: int) -> dict[str, torch.Tensor]:
    model = EchoMENModel.from_pretrained(folder / "model").double()
    processor = EchoMENVideoProcessor.for_model(model.config)
    videos = load_echonet_dynamic(data_dir, cache_dir=folder / "cache", split="train")
    clips = TrainingClips(videos, processor, num_views=2 if stage == 1 else 1, crop_padding=3)
    args = EchoMENTrainingArguments(
        output_dir=str(folder / "gradients"),
        stage=stage,
        eval_strategy="no",
        load_best_model_at_end=False,
        report_to="none",
        use_cpu=True,
    )
    trainer = EchoMENTrainer(model=model, args=args, train_dataset=clips)
    trainer.prepare_stage()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    share = 8 // world_size
    batch = with_pixel_values(collate_clips([clips[index] for index in range(rank * share, (rank + 1) * share)]))
    batch["pixel_values"] = batch["pixel_values"].double()
    wrapped = trainer.accelerator.prepare_model(model.train())
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.eval()
    trainer.accelerator.backward(trainer.compute_loss(wrapped, batch))
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
