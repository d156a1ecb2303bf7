"""What one training step costs in time and memory, with any switches on: measured in a process of its own.

A process that has measured one setting would lend its memory to the next, so `measure_in_new_process` starts a fresh
one for each, on random clips that are already in memory: what is measured is the step and not the disk.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from ..allocator import keep_large_blocks
from ..configuration_echomen import EchoMENConfig
from ..data.device_clips import pack_clip, random_shift
from ..losses import squared_error
from ..modeling_echomen import EchoMENModel
from ..resident_memory import peak_resident_bytes
from ..video_processing_echomen import EchoMENVideoProcessor
from .arguments import EchoMENTrainingArguments
from .trainer import EchoMENTrainer


__all__ = ["StepCost", "StepSetting", "measure", "measure_in_new_process", "ready_made_step"]

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
MODULE = "echomen_hf.training.step_cost"


@dataclass(frozen=True)
class StepSetting:
    """One thing to measure.

    Args:
        batch_size: Videos per optimiser step, over all micro-batches.
        num_views: Crops of each; 1 leaves the contrastive loss nothing to compare.
        model_config: Fields of `EchoMENConfig`; the paper's size without.
        switches: Training arguments that are on, such as `bf16`, `channels_last` and `gradient_accumulation_steps`.
        implementation: `echomen`, the trainer's whole stage-1 step; `encoder`, forward and backward pass of the same
            encoder and regression head and an SGD step, without a trainer; `torchvision`, the same of torchvision's
            `r2plus1d_18` with one output, in float32 as it comes: what there is without this package.
        num_steps: Steps timed, after one that is not.
        num_threads: Threads of torch; its own choice without.
        memory_limit: Bytes that the process may allocate; more ends it with a clear result. No limit without.
    """

    batch_size: int
    num_views: int = 2
    model_config: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)
    implementation: str = "echomen"
    num_steps: int = 3
    num_threads: int | None = None
    memory_limit: int | None = None


@dataclass(frozen=True)
class StepCost:
    """What was measured.

    Args:
        step_seconds: Wall-clock time of every step in seconds; none if memory ran out.
        peak_bytes: Largest resident memory of the process in bytes, that of its libraries included.
        bytes_before: Resident memory in bytes once libraries were loaded and before there was a model.
        failure: Why there is no result, such as that memory ran out; empty if there is one.
    """

    step_seconds: list[float]
    peak_bytes: int
    bytes_before: int
    failure: str = ""

    @property
    def median_seconds(self) -> float:
        """Median time of a step in seconds; not a number without steps."""
        return statistics.median(self.step_seconds) if self.step_seconds else float("nan")


class ReadyClips(Dataset):
    """Random clips in memory.

    Args:
        processor: Video processor, which says how large they are.
        num_videos: Number of clips.
        num_views: Crops of each.
    """

    def __init__(self, processor: EchoMENVideoProcessor, num_videos: int, num_views: int) -> None:
        generator = np.random.default_rng(0)
        shape = (processor.num_frames, processor.crop_size["height"], processor.crop_size["width"])
        self.ejection_fractions = generator.uniform(20, 75, size=num_videos).tolist()
        self.items: list[dict[str, Any]] = []
        for ejection_fraction in self.ejection_fractions:
            shifts = torch.stack([random_shift(12, generator) for _ in range(num_views)])
            frames = generator.integers(0, 256, size=shape, dtype=np.uint8)
            clip = pack_clip(frames, processor, shifts if num_views > 1 else shifts[0])
            self.items.append({**clip, "labels": ejection_fraction})

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Look up one clip."""
        return self.items[index]


class Stopwatch(TrainerCallback):
    """Times every optimiser step with all its micro-batches."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.started)


def measure_in_new_process(setting: StepSetting) -> StepCost:
    """Measure a setting in a process that ends with it.

    Args:
        setting: What to measure.

    Returns:
        Its cost, or why there is none.

    Raises:
        RuntimeError: If the process ends with an error other than a lack of memory.
    """
    child = subprocess.run(
        [sys.executable, "-m", MODULE, json.dumps(asdict(setting))], capture_output=True, text=True, check=False
    )
    if child.returncode == 0:
        return StepCost(**json.loads(child.stdout.splitlines()[-1]))
    if child.returncode == -9:
        return StepCost([], 0, 0, "ended by the system, as it does when memory runs out")
    raise RuntimeError(f"Measuring {setting} failed with status {child.returncode}:\n{child.stderr[-3000:]}")


def measure(setting: StepSetting) -> StepCost:
    """Measure a setting in this process, whose peak of memory includes whatever it did before.

    Args:
        setting: What to measure.

    Returns:
        Its cost; a lack of memory is a result too.
    """
    if setting.num_threads is not None:
        torch.set_num_threads(setting.num_threads)
    before = peak_resident_bytes()
    if setting.memory_limit is not None:
        # Data and anonymous memory, which all tensors are; not address space, of which threads reserve far more.
        resource.setrlimit(resource.RLIMIT_DATA, (setting.memory_limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    torch.manual_seed(0)
    seconds, failure = [], ""
    try:
        seconds = trainer_steps(setting) if setting.implementation == "echomen" else plain_steps(setting)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)):
            raise
        limit = f"{setting.memory_limit / 2**30:.1f} GiB" if setting.memory_limit else "what the machine has"
        failure = f"needs more memory than {limit}"
    return StepCost(seconds, peak_resident_bytes(), before, failure)


def trainer_steps(setting: StepSetting) -> list[float]:
    """Time the steps of a stage-1 training.

    Args:
        setting: What to measure.

    Returns:
        Seconds of every step but the first.
    """
    config = EchoMENConfig(**setting.model_config)
    processor, stopwatch = EchoMENVideoProcessor.for_model(config), Stopwatch()
    steps = setting.switches.get("gradient_accumulation_steps", 1)
    if setting.batch_size % steps:
        raise ValueError(f"{setting.batch_size} videos cannot be accumulated in {steps} equal micro-batches.")
    with TemporaryDirectory() as folder:
        args = EchoMENTrainingArguments(
            **setting.switches,
            output_dir=folder,
            per_device_train_batch_size=setting.batch_size // steps,
            max_steps=1 + setting.num_steps,
            num_views=setting.num_views,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
        )
        dataset = ReadyClips(processor, setting.batch_size, setting.num_views)
        EchoMENTrainer(
            model=EchoMENModel(config),
            args=args,
            train_dataset=dataset,
            callbacks=[stopwatch],
            processing_class=processor,
        ).train()
    return stopwatch.seconds[1:]


def plain_steps(setting: StepSetting) -> list[float]:
    """Time forward and backward pass and SGD step of an R(2+1)D with one output, without a trainer.

    Args:
        setting: What to measure; `channels_last`, `bf16` and `keep_large_blocks` are known here.

    Returns:
        Seconds of every step but the first.
    """
    step = ready_made_step(setting)
    seconds = []
    for _ in range(1 + setting.num_steps):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def ready_made_step(setting: StepSetting) -> Callable[[], float]:
    """Make the function that takes one training step on the same random clips, for a benchmark's two sides.

    Args:
        setting: What to measure, by `encoder` or `torchvision`.

    Returns:
        Function that takes a step and returns the loss, in squared percent.
    """
    on = {name for name, value in setting.switches.items() if value}
    unknown = on - {"bf16", "channels_last", "keep_large_blocks"}
    if unknown or (on and setting.implementation == "torchvision"):
        raise ValueError(f"A step of {setting.implementation!r} has no switches {sorted(on)}.")
    keep_large_blocks("keep_large_blocks" in on)
    config = EchoMENConfig(**setting.model_config)
    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch_size * setting.num_views, config.num_frames, config.num_channels)
    clips = torch.randn(*shape, config.image_size, config.image_size, generator=generator)
    labels = torch.linspace(20, 75, len(clips))
    if setting.implementation == "torchvision":
        from torchvision.models.video import r2plus1d_18

        encoder: nn.Module = r2plus1d_18()
        encoder.fc, head = nn.Identity(), nn.Linear(512, 1)
        clips = clips.transpose(1, 2).contiguous()  # (B, T, C, H, W) -> (B, C, T, H, W)
    else:
        model = EchoMENModel(config)
        encoder, head = model.encoder, model.regression_head
    if "channels_last" in on:
        encoder.to(memory_format=torch.channels_last_3d)
    encoder.train()
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=1e-4, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in on):
            embedding = encoder(clips)
        loss = squared_error(head(embedding.float()).squeeze(-1), labels)  # heads stay in full precision
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    print(json.dumps(asdict(measure(StepSetting(**json.loads(sys.argv[1]))))))
