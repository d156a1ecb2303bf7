"""Add residual blocks to the encoder of a model without changing what it computes.

    python scripts/deepen_small_model.py --model src/echomen_hf/checkpoints/small --depths 1 1 2 2 --output runs/deeper

A new block begins as the identity: the scale of its last normalisation is zero. A training then continues from the
weights of the smaller network.
"""

import argparse
import copy
from pathlib import Path
from typing import cast

import torch

from echomen_hf import EchoMENModel
from echomen_hf.cli.command_line import run_script
from echomen_hf.inference import load_checkpoint


def main(arguments: list[str] | None = None) -> None:
    """Save the deeper model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="Folder of the model.")
    parser.add_argument("--depths", required=True, nargs="+", type=int, help="Blocks of every stage.")
    parser.add_argument("--output", required=True, type=Path, help="Folder of the deeper model.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of the new blocks' weights.")
    args = parser.parse_args(arguments)
    model, processor = load_checkpoint(args.model)
    deeper = deepen(model, args.depths, args.seed)
    deeper.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    print(f"{deeper.num_parameters() / 1e6:.2f} million parameters in {args.output}")


def deepen(model: EchoMENModel, depths: list[int], seed: int) -> EchoMENModel:
    """Make a model with more blocks that computes the same.

    Args:
        model: Model.
        depths: Blocks of every stage, none fewer than the model has.
        seed: Seed of the new blocks' weights.

    Returns:
        The deeper model, in evaluation mode.

    Raises:
        ValueError: If a stage would lose blocks.
    """
    before = model.config.depths
    if len(depths) != len(before) or any(new < old for new, old in zip(depths, before, strict=True)):
        raise ValueError(f"`depths` must have {len(before)} numbers, none below those of the model {before}.")
    config = copy.deepcopy(model.config)
    config.depths = depths
    torch.manual_seed(seed)
    deeper = EchoMENModel(config)
    deeper.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for name, old in zip(deeper.encoder.stage_names, before, strict=True):
            stage = cast(torch.nn.Sequential, deeper.encoder.get_submodule(name))
            for block in list(stage)[old:]:
                block.get_submodule("conv2.1").get_parameter("weight").zero_()
    return deeper.eval()


if __name__ == "__main__":
    run_script(main)
