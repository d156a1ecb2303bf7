"""Save the gradients of both stages for a batch of 8 videos, shared among the processes that run this script.

In double precision, so that the order of sums does not matter; in single precision a unit at the kink of its ReLU
could fall on either side. Normalisation layers use their stored statistics here: those of half a batch differ
from those of the whole by design.
"""

import os
import sys
from pathlib import Path

import torch

from echomen_hf import (
    EchoMENModel,
    EchoMENTrainer,
    EchoMENTrainingArguments,
    EchoMENVideoProcessor,
    load_echonet_dynamic,
)
from echomen_hf.data import TrainingClips, collate_clips, with_pixel_values


def save_gradients(data_dir: str, folder: Path, stage: int) -> None:
    model = EchoMENModel.from_pretrained(folder / "model").double()
    processor = EchoMENVideoProcessor.for_model(model.config)
    videos = load_echonet_dynamic(data_dir, cache_dir=folder / "cache", split="train")
    clips = TrainingClips(videos, processor, num_views=2 if stage == 1 else 1, crop_padding=3)
    args = EchoMENTrainingArguments(
        output_dir=str(folder / "run"),
        stage=stage,
        eval_strategy="no",
        load_best_model_at_end=False,
        report_to="none",
        use_cpu=True,
    )
    trainer = EchoMENTrainer(model=model, args=args, train_dataset=clips)
    trainer.prepare_stage()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share = 8 // world_size
    batch = with_pixel_values(collate_clips([clips[index] for index in range(rank * share, (rank + 1) * share)]))
    batch["pixel_values"] = batch["pixel_values"].double()
    wrapped = trainer.accelerator.prepare_model(model.train())
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.eval()
    trainer.accelerator.backward(trainer.compute_loss(wrapped, batch))
    if rank == 0:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        torch.save(gradients, folder / f"gradients-{stage}-{world_size}.pt")


if __name__ == "__main__":
    for stage in (1, 2):
        save_gradients(sys.argv[1], Path(sys.argv[2]), stage)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
