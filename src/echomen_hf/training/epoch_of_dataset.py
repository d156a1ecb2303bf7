"""The callback that tells a training set which epoch begins."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


__all__ = ["EpochOfDataset"]


class EpochOfDataset(TrainerCallback):
    """Tells the training set which epoch begins, also after a resume and with several processes."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Pass the number of the epoch on.

        Args:
            args: Training arguments.
            state: State of the training.
            control: Not used.
            train_dataloader: Loader whose data set is told.
            kwargs: Not used.
        """
        dataset: Any = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))
