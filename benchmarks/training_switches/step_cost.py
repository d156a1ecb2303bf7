"""Time and memory of one training step, measured in a separate process.

Every setting is measured in a new process, since memory that one setting has freed would be reused by the next.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from benchmarks.memory import allocation_limit, peak_resident_bytes
from echomen_hf.data.device_clips import pack_clip, random_shift
from echomen_hf.model.configuration_echomen import EchoMENConfig
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor
from echomen_hf.training.arguments import EchoMENTrainingArguments
from echomen_hf.training.trainer import EchoMENTrainer


__all__ = ["StepCost", "StepSetting", "measure", "measure_in_new_process"]

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
MODULE = "benchmarks.training_switches.step_cost"


@dataclass(frozen=True)
class StepSetting:
    """Setting to measure."""

    batch_size: int  # videos per optimiser step, over all micro-batches
    num_views: int = 2  # crops of each video
    model_config: dict[str, Any] = field(default_factory=dict)  # empty: the paper's size
    switches: dict[str, Any] = field(default_factory=dict)  # training arguments, such as `bf16`
    num_steps: int = 3  # timed, after a warm-up step
    num_threads: int | None = None  # of torch
    memory_limit: int | None = None  # bytes in addition to those of the libraries


@dataclass(frozen=True)
class StepCost:
    """Measured cost."""

    step_seconds: list[float]  # empty if memory ran out
    peak_bytes: int  # largest resident memory, including the libraries
    bytes_before: int  # resident memory before there is a model
    failure: str = ""  # why there is no result

    @property
    def median_seconds(self) -> float:
        """Median time of a step in seconds, NaN without steps."""
        return statistics.median(self.step_seconds) if self.step_seconds else float("nan")


class ReadyClips(Dataset):
    """Random clips in memory, so that no file is read."""

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
        """Number of clips."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip."""
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
    """Measure a setting in a new process. A lack of memory is a result, any other error a `RuntimeError`."""
    child = subprocess.run(
        [sys.executable, "-m", MODULE, json.dumps(asdict(setting))], capture_output=True, text=True, check=False
    )
    if child.returncode == 0:
        return StepCost(**json.loads(child.stdout.splitlines()[-1]))
    if child.returncode == -9:
        return StepCost([], 0, 0, "ended by the system, as it does when memory runs out")
    raise RuntimeError(f"Measuring {setting} failed with status {child.returncode}:\n{child.stderr[-3000:]}")


def measure(setting: StepSetting) -> StepCost:
    """Measure a setting in this process, whose peak memory includes what it did before."""
    if setting.num_threads is not None:
        torch.set_num_threads(setting.num_threads)
    before = peak_resident_bytes()
    torch.manual_seed(0)
    seconds, failure = [], ""
    try:
        # The limit ends first, since removing the folder needs memory too.
        with TemporaryDirectory() as folder, allocation_limit(setting.memory_limit):
            seconds = trainer_steps(setting, folder)
    except (MemoryError, RuntimeError, OSError) as error:
        if not (isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)):
            raise
        limit = f"{setting.memory_limit / 2**30:.1f} GiB" if setting.memory_limit else "what the machine has"
        failure = f"needs more memory than {limit}"
    # Linux counts pages per thread and adds them up now and then, so that a later reading may be a little less.
    return StepCost(seconds, max(before, peak_resident_bytes()), before, failure)


def trainer_steps(setting: StepSetting, folder: str) -> list[float]:
    """Seconds of every step of stage 1 but the first."""
    config = EchoMENConfig(**setting.model_config)
    processor, stopwatch = EchoMENVideoProcessor.for_model(config), Stopwatch()
    steps = setting.switches.get("gradient_accumulation_steps", 1)
    if setting.batch_size % steps:
        raise ValueError(f"{setting.batch_size} videos cannot be accumulated in {steps} equal micro-batches.")
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


if __name__ == "__main__":
    print(json.dumps(asdict(measure(StepSetting(**json.loads(sys.argv[1]))))))
