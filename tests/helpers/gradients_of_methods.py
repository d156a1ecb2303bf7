"""Save the gradients that methods give for one batch of 8 videos, shared among however many processes run it.

In double precision and with stored batch statistics, so that only what processes tell each other makes a difference.
"""

import os
import sys
from pathlib import Path

import torch

from echomen_hf import EchoMENTrainingArguments, EchoMENVideoProcessor, load_echonet_dynamic
from echomen_hf.data import TrainingClips, collate_clips, with_pixel_values
from echomen_hf.methods import get_method


def gradients(name: str, videos, folder: Path) -> dict[str, torch.Tensor]:
    method = get_method(name)
    model = method.model_class.from_pretrained(folder / "model").double()
    args = method.training_arguments(
        EchoMENTrainingArguments(
            output_dir=str(folder / "run"),
            eval_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            use_cpu=True,
        )
    ).for_stage(1, str(folder / "run"))
    processor = EchoMENVideoProcessor.for_model(model.config)
    clips = TrainingClips(videos, processor, args.num_views, crop_padding=3)
    trainer = method.make_trainer()(model=model, args=args, train_dataset=clips)
    trainer.prepare_stage()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share = 8 // world_size
    batch = with_pixel_values(collate_clips([clips[index] for index in range(rank * share, (rank + 1) * share)]))
    batch["pixel_values"] = batch["pixel_values"].double()
    labels = torch.arange(21.5, 93.5, 9.0)
    if name != "ranksim":
        # Two bins have a sample in either half, so that their variance takes both processes. Among labels of one bin
        # RankSim chooses at random, and processes draw numbers of their own.
        labels[4:6] = labels[[1, 3]] + 0.3
    batch["labels"] = labels[rank * share : (rank + 1) * share]
    wrapped = trainer.accelerator.prepare_model(model.train())
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.eval()
    # The second time, feature statistics of an epoch are there.
    trainer.accelerator.backward(trainer.compute_loss(wrapped, batch))
    trainer.method_loss.end_epoch(model)
    trainer.accelerator.backward(trainer.compute_loss(wrapped, batch))
    found = {f"{name}.{key}": p.grad for key, p in model.named_parameters() if p.requires_grad}
    return found | {f"{name}.{key}": value for key, value in model.named_buffers() if "feature_statistics" in key}


def main(data_dir: str, folder: Path, names: list[str]) -> None:
    videos = load_echonet_dynamic(data_dir, cache_dir=folder / "cache", split="train")
    found = {}
    for name in names:
        found |= gradients(name, videos, folder)
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, folder / f"gradients-{os.environ.get('WORLD_SIZE', '1')}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
