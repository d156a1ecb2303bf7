'''EchoMEN, the rivals of the paper's Table 1, newer losses, and the ablations of Table 2, all trained in one way.

A method is a model class, a loss, a trainer and the defaults that make it what it is. Trainer, data, validation and
test protocol are the same for all, which is what makes a comparison fair: the encoders of two methods begin with the
same weights, see the same videos in the same order, and take the same number of optimiser steps (those of stage 1; a
stage 2 leaves the encoder as it is), or each as many as its publication says; the epoch to keep is chosen on VAL by
one metric for all. A method with two views reads the same clips, each in two crops.

How to add a rival: one file, one line in `registry.py`, one test.

1. `methods/huber.py`, named after the method, holds a pure function of tensors, its module form, and the method:

```python
"""Huber regression (Huber 1964): squared error for small deviations, absolute error for large ones."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..model.modeling_echomen import EchoMENModel, EchoMENOutput
from .method import Method
from .method_loss import MethodLoss
from .method_trainer import MethodTrainer


class HuberLoss(MethodLoss):
    """Huber loss that becomes linear at a deviation of `delta` EF points."""

    def __init__(self, train_labels: NDArray[np.float64], *, delta: float = 5.0) -> None:
        super().__init__(train_labels)
        self.delta = delta

    def forward(
        self, model: EchoMENModel, outputs: EchoMENOutput, labels: torch.Tensor, num_views: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a batch, see `MethodLoss`."""
        regression = F.huber_loss(outputs.regression.float(), labels.float(), delta=self.delta)
        return regression, {"loss_regression": regression}


HUBER = Method(
    name="huber",
    title="Huber",
    source="Huber, Robust estimation of a location parameter, 1964.",
    group="newer",
    loss=HuberLoss,
    trainer_class=MethodTrainer,
    training_defaults={"stage": "1", "num_views": 1},
)
```

   The keyword-only arguments of the loss are the method's options; a misspelt one is refused. `train_labels` are there
   for sample weights and statistics of the labels.

2. A line of `REGISTRY` in `methods/registry.py`: `"huber": ("huber", "HUBER")`.

3. `tests/methods/test_huber.py`: numbers worked by hand, a gradient checked in double precision, the batches that
   could break it. That a method learns, saves, loads and resumes is tested for every name in the registry.

Then:

```python
from echomen_hf import EchoMENTrainingArguments, load_echonet_dynamic
from echomen_hf.inference import predict_split
from echomen_hf.methods import fit_method

videos = load_echonet_dynamic("EchoNet-Dynamic")
args = EchoMENTrainingArguments(output_dir="runs/huber")
model = fit_method("huber", videos["train"], videos["validation"], args, processor=processor, options={"delta": 8.0})
predictions = predict_split(model, processor, videos["test"])
```

What else a method may need:

- A loss that compares samples with each other computes over all processes with `loss_of_all_processes`.
- State that has to survive a checkpoint (running statistics, a learnt noise) belongs into a subclass of
  `EchoMENModel`, named as `model_class`; see `ddir.py` and `balanced_mse.py`. It is left out of the final model.
- Something to be done once an epoch: `MethodLoss.end_epoch`.
- A second stage: a subclass of `MethodTrainer` as `trainer_class`, and `stage: both`; see `rank_n_contrast.py`.
- Another network: a `PreTrainedModel` with a configuration of its own, whose `forward` ends in `single_prediction`,
  and `ArchitectureTrainer` as `trainer_class`; see `uniformer.py` and `echocotr.py`. The configuration holds its clip
  rule, and `load_method_checkpoint` loads it.
- Training clips by another rule, or with further labels: `training_clips`; see `uvt_clips.py`.
- What makes it the method and not a setting goes into `model_defaults` and `training_defaults`, which no recipe
  overrides; the schedule of its publication into `published_training`.
'''

from .fitting import fit_method
from .loading import load_method_checkpoint
from .method import Method, MethodGroup
from .method_loss import MethodLoss
from .method_trainer import MethodTrainer
from .networks.architecture import ArchitectureTrainer, single_prediction
from .parameter_count import trained_parameter_count
from .registry import get_method, list_methods


__all__ = [
    "ArchitectureTrainer",
    "Method",
    "MethodGroup",
    "MethodLoss",
    "MethodTrainer",
    "fit_method",
    "get_method",
    "list_methods",
    "load_method_checkpoint",
    "single_prediction",
    "trained_parameter_count",
]
