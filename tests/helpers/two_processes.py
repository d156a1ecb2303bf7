"""What several processes of a training share and what not, as rank-wise results that tests look at.

One launch for all of them, since starting processes takes most of the time.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from echomen_hf import (
    EchoMENModel,
    EchoMENTrainer,
    EchoMENTrainingArguments,
    EchoMENVideoProcessor,
    load_echonet_dynamic,
)
from echomen_hf.data import EvaluationClips, TrainingClips
from echomen_hf.training.gather import gather_with_gradient, loss_of_all_processes
from echomen_hf.training.processes import require_shared_folder, sees_folder_of_first_process


sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.gradients_of_a_batch import gradients_of_a_batch  # noqa: E402
from helpers.recipe_runs import train_two_steps  # noqa: E402


def arguments(folder: Path, **changes) -> EchoMENTrainingArguments:
    settings = {
        "output_dir": str(folder / "run"),
        "total_train_batch_size": 6,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "optim": "adamw_torch",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }
    return EchoMENTrainingArguments(**{**settings, **changes})


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


class Watched(EchoMENTrainer):
    """Notes the labels and the noise of every step, and the buffers before and after every evaluation."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen = {"labels": [], "noise": [], "before": [], "after": []}

    def training_step(self, model, inputs, *args, **kwargs):
        self.seen["labels"].append(inputs["labels"])
        self.seen["noise"].append(torch.rand(4))
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        self.seen["before"].append(buffers(self.model))
        output = super().evaluation_loop(*args, **kwargs)
        self.seen["after"].append(buffers(self.model))
        return output


def train(videos, folder: Path, **changes) -> dict:
    model = EchoMENModel.from_pretrained(folder / "model")
    processor = EchoMENVideoProcessor.for_model(model.config)
    trainer = Watched(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=TrainingClips(videos["train"], processor, num_views=2, crop_padding=3),
        eval_dataset=EvaluationClips(videos["validation"], processor, "windows"),
        processing_class=processor,
    )
    trainer.train()
    errors = [entry["eval_mse"] for entry in trainer.state.log_history if "eval_mse" in entry]
    return {
        **trainer.seen,
        "eval_mse": errors[-1] if errors else None,
        "checkpoint": trainer.state.best_model_checkpoint,
        "per_device_train_batch_size": trainer.args.per_device_train_batch_size,
    }


def train_by_recipe(data_dir: str, folder: Path) -> None:
    """Both stages of the recipe for several GPUs, for two steps; synchronised batch normalisation needs GPUs."""
    train_two_steps("paper_ddp", data_dir, folder / "by_recipe", sync_batch_norm=False)


def message_of(function, *args, **kwargs) -> str:
    try:
        function(*args, **kwargs)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def gathered(rank: int) -> dict:
    """Three numbers of the first process and two of the second: their product, and its gradient."""
    own = torch.tensor([2.0, 3.0, 4.0][: 3 - rank], dtype=torch.float64) + rank
    own.requires_grad_()
    joined, ranks = gather_with_gradient(own, torch.full((len(own),), rank))
    loss = loss_of_all_processes(lambda values: values.prod(), own)
    loss.backward()
    return {"joined": joined.detach(), "ranks": ranks, "loss": loss.detach(), "gradient": own.grad}


def main(data_dir: str, folder: Path) -> None:
    torch.set_num_threads(1)
    args = arguments(folder)  # which makes the processes known to each other
    rank = args.process_index
    videos = load_echonet_dynamic(data_dir, cache_dir=folder / "cache")
    found = {
        "trained": train(videos, folder),
        "again": train(
            videos,
            folder,
            output_dir=str(folder / "again"),
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
        ),
        "odd_batch": message_of(arguments, folder, total_train_batch_size=7),
        "sync_batch_norm": message_of(arguments, folder, sync_batch_norm=True),
        "shared": sees_folder_of_first_process(folder / "shared"),
        "apart": sees_folder_of_first_process(folder / f"apart-{rank}"),
        "refused": message_of(require_shared_folder, folder / f"apart-{rank}"),
        "gathered": gathered(rank),
        "gradients": {stage: gradients_of_a_batch(data_dir, folder, stage) for stage in (1, 2)},
    }
    torch.save(found, folder / f"rank-{rank}.pt")
    train_by_recipe(data_dir, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
