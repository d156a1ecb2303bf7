"""Time and memory of stage 2 on many vectors: reading the file, an epoch of training, experts in closed form.

    python -m benchmarks.vectors

Vectors and labels are random. Seconds are those of the clock and of the processor, over all its cores, and memory is
the largest that the process has had.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.memory import peak_resident_bytes
from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENTrainer, EchoMENTrainingArguments
from echomen_hf.data.clip_vectors import read_clip_vectors, write_clip_vectors
from echomen_hf.evaluation.report import markdown_table
from echomen_hf.labels import ExpertWeightTable
from echomen_hf.simulation.ejection_fraction_distribution import ejection_fraction_at
from echomen_hf.training.embeddings import TrainingEmbeddings
from echomen_hf.training.expert_solution import set_experts_to_their_optimum


ROWS_AT_ONCE = 4096


def random_parts(num_vectors: int, size: int) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Make random vectors and labels in the distribution of EchoNet-Dynamic, part by part."""
    generator = torch.Generator().manual_seed(0)
    labels = ejection_fraction_at((np.arange(num_vectors) + 0.5) / num_vectors)
    labels = np.random.default_rng(0).permutation(labels)
    for start in range(0, num_vectors, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, num_vectors - start)
        yield (
            torch.randn(count, size, generator=generator),
            {
                "file_name": [f"video_{index}" for index in range(start, start + count)],
                "clip_start": [0] * count,
                "split": ["train"] * count,
                "EF": labels[start : start + count].tolist(),
            },
        )


def train_one_epoch(dataset: TrainingEmbeddings, size: int, batch_size: int, folder: Path) -> None:
    """Train experts and aggregator for one epoch."""
    args = EchoMENTrainingArguments(
        output_dir=str(folder),
        stage="2",
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_steps=1000,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    EchoMENTrainer(model=EchoMENModel(EchoMENConfig(vector_size=size)), args=args, train_dataset=dataset).train()


def measured(name: str, work: Callable[[], Any], rows: list[list[str]]) -> Any:
    """Do some work and add its time and the memory so far to a table."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    memory = peak_resident_bytes() / 2**30
    rows.append([name, f"{clock:.1f}", f"{processor:.1f}", f"{memory:.2f}"])
    print(" | ".join(rows[-1]), flush=True)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_vectors", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1408)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[20, 256])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured("imports", lambda: None, rows)
        path = folder / "vectors.parquet"
        parts = random_parts(given.num_vectors, given.size)
        measured("make and write", lambda: write_clip_vectors(path, parts, "center"), rows)
        vectors = measured("read", lambda: read_clip_vectors(path), rows)
        dataset = TrainingEmbeddings.of_vectors(vectors, vectors.rows()["train"])
        for size in given.batch_sizes:
            work = lambda size=size: train_one_epoch(dataset, given.size, size, folder)  # noqa: E731
            measured(f"epoch, batches of {size}", work, rows)
        model = EchoMENModel(EchoMENConfig(vector_size=given.size))
        table = ExpertWeightTable(dataset.ejection_fractions)
        measured(
            "three experts in closed form", lambda: set_experts_to_their_optimum(model, dataset, table, 1e-4), rows
        )
    print(f"\n{given.num_vectors} vectors of {given.size} numbers, {given.threads} threads, {platform.processor()}\n")
    print(markdown_table(["", "s by the clock", "s of the processor", "peak memory (GiB)"], rows))


if __name__ == "__main__":
    main()
