"""An epoch of stage 2: all clips through the fixed encoder, against embeddings computed in advance."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.workload import Workload
from benchmarks.speed.workloads.decoding import FileItems, OpenCVItems
from benchmarks.speed.workloads.inference import torchvision_encoder
from echomen_hf.inference.checkpoint import load_checkpoint
from echomen_hf.labels import ExpertWeightTable
from echomen_hf.losses import ReweightedRegressionLoss, squared_error
from echomen_hf.simulation.ejection_fraction_distribution import TRAIN_COUNTS, ejection_fraction_at
from echomen_hf.training import EchoMENTrainer, EchoMENTrainingArguments
from echomen_hf.training.embeddings import TrainingEmbeddings, embed
from echomen_hf.training.expert_solution import solve_experts


__all__ = ["CachedEpoch", "EncoderEpoch", "ExpertsByNumPy", "ExpertsInClosedForm"]

TRAIN_VIDEOS = sum(TRAIN_COUNTS)
"""Training videos of EchoNet-Dynamic."""

BATCH_SIZE = 20

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-4


def labels_of_full_size(seed: int) -> torch.Tensor:
    """Labels in the number and distribution of EchoNet-Dynamic's training videos."""
    quantiles = (np.arange(TRAIN_VIDEOS) + 0.5) / TRAIN_VIDEOS
    return torch.as_tensor(np.random.default_rng(seed).permutation(ejection_fraction_at(quantiles)))


def many_embeddings(embeddings: torch.Tensor, seed: int) -> torch.Tensor:
    """Extend a few embeddings to the number of EchoNet-Dynamic's training videos."""
    repeated = embeddings[torch.arange(TRAIN_VIDEOS) % len(embeddings)]
    noise = 0.1 * embeddings.std() * torch.randn(repeated.shape, generator=torch.Generator().manual_seed(seed))
    noise[: len(embeddings)] = 0
    return repeated + noise


class EncoderEpoch(Workload):
    """Plain steps of stage 2: OpenCV, torchvision's encoder, experts and aggregator."""

    def __init__(self, model: str, data_dir: str, num_clips: int = 4, seed: int = 0) -> None:
        self.items = OpenCVItems(model=model, data_dir=data_dir, num_videos=num_clips, seed=seed)
        self.model, _ = load_checkpoint(model)
        self.encoder = torchvision_encoder(self.model.encoder).eval()
        self.labels = labels_of_full_size(seed)
        self.loss = ReweightedRegressionLoss(ExpertWeightTable(self.labels.numpy(), self.model.config.num_experts))
        heads = [*self.model.experts.parameters(), *self.model.aggregator.parameters()]
        self.optimizer = torch.optim.SGD(heads, LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY)
        self.embedding = torch.empty(0)

    def run(self) -> float:
        """Do one step on all clips."""
        self.items.run()
        with torch.no_grad():
            clips = torch.stack(self.items.last).transpose(1, 2)  # (B, T, C, H, W) -> (B, C, T, H, W)
            self.embedding = self.encoder(clips)
        labels = self.labels[: len(clips)]
        outputs = self.model(embedding=self.embedding)
        predictions = outputs.expert_predictions
        ensemble = (outputs.expert_weights * predictions.detach()).sum(dim=-1)
        loss = self.loss(predictions, labels) + squared_error(ensemble, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return len(clips) / TRAIN_VIDEOS

    @torch.no_grad()
    def values(self) -> NDArray[np.floating]:
        """Ejection fraction of the clips by the regression head, which stage 2 does not change."""
        return self.model(embedding=self.embedding).regression.double().numpy()

    def notes(self) -> dict[str, Any]:
        """Number of clips from which the epoch is extrapolated."""
        return {"extrapolated_from_clips": len(self.items.rows)}


class CachedEpoch(Workload):
    """An epoch of `EchoMENTrainer` on embeddings of as many clips as EchoNet-Dynamic has training videos.

    The first embeddings are those of real clips, on which results are compared; the others are these again with noise
    added, as a step takes as long whatever the numbers are.
    """

    def __init__(self, model: str, data_dir: str, num_clips: int = 4, seed: int = 0) -> None:
        items = FileItems(model=model, data_dir=data_dir, num_videos=num_clips, seed=seed)
        self.model, processor = load_checkpoint(model)
        self._folder = tempfile.TemporaryDirectory()
        args = EchoMENTrainingArguments(
            output_dir=self._folder.name,
            stage="2",
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=4,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            channels_last=True,
            seed=seed,
        )
        began = time.perf_counter()
        self.embedding = embed(self.model, items.dataset, args, "clips")
        self.seconds_to_embed = (time.perf_counter() - began) / len(self.embedding)
        dataset = TrainingEmbeddings(many_embeddings(self.embedding, seed)[None], labels_of_full_size(seed).tolist())
        self.trainer = EchoMENTrainer(self.model, args, train_dataset=dataset, processing_class=processor)

    def run(self) -> float:
        """Train one epoch."""
        self.trainer.optimizer = self.trainer.lr_scheduler = None
        self.trainer.train()
        return 1

    @torch.no_grad()
    def values(self) -> NDArray[np.floating]:
        """Ejection fraction of the clips by the regression head, which stage 2 does not change."""
        return self.model(embedding=self.embedding).regression.double().numpy()

    def notes(self) -> dict[str, Any]:
        """Time to compute the embeddings, per clip and, extrapolated, for the data set."""
        return {
            "cache_seconds_per_clip": self.seconds_to_embed,
            "cache_hours_per_draw": self.seconds_to_embed * TRAIN_VIDEOS / 3600,
        }


class Experts(Workload):
    """Experts with the least loss on one embedding per training video."""

    def __init__(self, model: str, seed: int = 0) -> None:
        loaded, _ = load_checkpoint(model)
        generator = torch.Generator().manual_seed(seed)
        self.embeddings = torch.randn(TRAIN_VIDEOS, loaded.config.embedding_size, generator=generator).relu()
        self.labels = labels_of_full_size(seed)
        self.weights = torch.as_tensor(ExpertWeightTable(self.labels.numpy(), loaded.config.num_experts)(self.labels))
        self.solution: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (M, D) and biases (M,) of the experts, float64."""
        raise NotImplementedError

    def run(self) -> float:
        """Compute all experts."""
        self.solution = self.solve()
        return 1

    def values(self) -> NDArray[np.floating]:
        """Ejection fractions of all experts for the first 100 embeddings."""
        weights, biases = self.solution
        return (self.embeddings[:100].double() @ weights.T + biases).numpy()


class ExpertsByNumPy(Experts):
    """NumPy's least squares on samples scaled by the roots of their weights, with weight decay as further samples."""

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the experts one by one."""
        features = np.c_[self.embeddings.double().numpy(), np.ones(TRAIN_VIDEOS)]
        # The bias is not decayed.
        decay = np.sqrt(WEIGHT_DECAY / 2) * np.eye(features.shape[1])[:-1]
        found = []
        for column in self.weights.double().numpy().T:
            root = np.sqrt(column / len(column))
            rows, targets = (
                np.r_[root[:, None] * features, decay],
                np.r_[root * self.labels.numpy(), np.zeros(len(decay))],
            )
            found.append(np.linalg.lstsq(rows, targets)[0])
        solution = torch.from_numpy(np.stack(found))
        return solution[:, :-1], solution[:, -1]


class ExpertsInClosedForm(Experts):
    """The solver of this package."""

    def solve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute each expert from one eigenvalue problem."""
        return solve_experts(self.embeddings, self.labels, self.weights, WEIGHT_DECAY)
