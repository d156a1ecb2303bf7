"""Put a trained model into the package as its small model, and the logs of its training into the documentation.

    python scripts/package_small_model.py --runs runs/small_smoothed runs/small

Configuration, weights and video processor only: the package has the code that a checkpoint elsewhere takes along.
Kernels of convolutions are stored in 16 bits, so that a larger network fits into the package, and loaded in 32.
`echomen examine`, which comes next, renews card and measurements.
"""

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, VIDEO_PROCESSOR_NAME, logging

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.report import write_json
from echomen_hf.inference import load_checkpoint
from echomen_hf.runs.run_folder import RUN_FILE


MAX_BYTES = 8_000_000
LOGS = Path(__file__).parent.parent / "docs" / "small_model"


def main(arguments: list[str] | None = None) -> None:
    """Copy the model and write the logs.

    Args:
        arguments: Command line without the name of the program.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", required=True, nargs="+", type=Path, help="Output folders of its trainings, in order."
    )
    parser.add_argument("--output", type=Path, default=SMALL_MODEL_FOLDER, help="Folder of the packaged model.")
    parser.add_argument("--logs", type=Path, default=LOGS, help="Folder for the logs, as CSV.")
    args = parser.parse_args(arguments)

    states = {run: sorted(run.glob(f"stage*/{TRAINER_STATE_NAME}")) for run in args.runs}
    for run, found in states.items():
        if not found:
            raise ValueError(f"{run} holds no finished training: there is no stage*/{TRAINER_STATE_NAME} in it.")
    logging.disable_progress_bar()
    model, processor = load_checkpoint(args.runs[-1])
    processor.short_videos = "back_and_forth"  # the encoder's first training was before there was a choice
    weights = {name: value.half() if value.ndim == 5 else value for name, value in model.state_dict().items()}
    size = sum(value.numel() * value.element_size() for value in weights.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"{args.runs[-1]} has weights of {size / 1e6:.1f} MB; the package takes {MAX_BYTES / 1e6:g} MB."
        )
    args.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
        shutil.copyfile(Path(folder) / SAFE_WEIGHTS_NAME, args.output / SAFE_WEIGHTS_NAME)
        for name in (CONFIG_NAME, VIDEO_PROCESSOR_NAME):
            settings = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
            settings.pop("auto_map", None)  # names files of code that are not there
            write_json(args.output / name, settings)
    shutil.copyfile(args.runs[-1] / RUN_FILE, args.output / RUN_FILE)
    args.logs.mkdir(parents=True, exist_ok=True)
    for run, found in states.items():
        for state in found:
            path = args.logs / f"{run.name}_{state.parent.name}.csv"
            read_log(state).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    print(f"The model is in {args.output}, the logs of its training in {args.logs}")


def read_log(path: Path) -> pd.DataFrame:
    """Read what a training logged.

    Args:
        path: trainer_state.json.

    Returns:
        One row per step, without times, which tell about the machine and change with every run.
    """
    state = json.loads(path.read_text(encoding="utf-8"))
    table = pd.DataFrame(state["log_history"]).groupby("step", as_index=False).first()
    timed = [name for name in table.columns if name.endswith(("_runtime", "_per_second")) or name == "total_flos"]
    return table.drop(columns=timed)


if __name__ == "__main__":
    run_script(main)
