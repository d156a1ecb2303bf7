"""Trainings by a recipe, as short as they can be."""

import json
from typing import Any

from echomen_hf.cli import invoke
from helpers.tiny_config import TINY


def train_two_steps(recipe: str, data_dir: Any, output: Any, **flags: Any) -> None:
    """Train a tiny model for two steps of each stage, by the command line and on a CPU."""
    flags = {
        "data_dir": data_dir,
        "output_dir": output,
        "model_config": json.dumps(TINY),
        "max_steps": 2,
        "crop_padding": 3,
        "dataloader_num_workers": 0,
        "dataloader_persistent_workers": False,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **flags,
    }
    invoke(["train", recipe, *(str(part) for name, value in flags.items() for part in (f"--{name}", value))])
