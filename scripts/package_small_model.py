"""Put a trained model into the package as its small model, and the logs of its training into the documentation.

    python scripts/package_small_model.py --runs runs/small_outlines runs/small_deepest runs/small

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
from matplotlib.figure import Figure
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, VIDEO_PROCESSOR_NAME, logging

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.report import write_json
from echomen_hf.figure_style import CATEGORY_COLOURS, NEUTRAL_COLOUR, new_figure, styled
from echomen_hf.inference import load_checkpoint
from echomen_hf.labels import CATEGORY_TITLES
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
    processor.short_videos = "loop"  # the encoder's first training was before there was a choice
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
    encoder_logs = []
    for run, found in states.items():
        for state in found:
            log = read_log(state)
            stage = state.parent.name
            log.to_csv(args.logs / f"{run.name}_{stage}.csv", index=False, float_format="%.6g", lineterminator="\n")
            if stage == "stage1":
                encoder_logs.append(log)
    if encoder_logs:
        training_figure(encoder_logs).savefig(args.logs / "stage1.png", dpi=150)
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


@styled
def training_figure(logs: list[pd.DataFrame]) -> Figure:
    """Draw the error on VAL in the course of trainings that follow each other.

    Args:
        logs: Results of `read_log`.

    Returns:
        The figure.
    """
    subtitle = "SIMULATED hearts. A dotted line begins another training."
    figure = new_figure("Error on VAL during stage 1 of the small model", subtitle, width=6.4, height=3.8)
    panel = figure.add_subplot()
    before = 0.0
    labelled = set()
    for number, log in enumerate(logs):
        rows = log.dropna(subset="eval_mae")
        if number:
            panel.axvline(before + 0.5, color=NEUTRAL_COLOUR, linewidth=0.8, linestyle=":")
        for category, title in CATEGORY_TITLES.items():
            name = "eval_mae" if category == "all" else f"eval_mae_{category}"
            if name in rows:  # VAL may be too small to have every category
                panel.plot(
                    before + rows["epoch"],
                    rows[name],
                    color=CATEGORY_COLOURS.get(category, NEUTRAL_COLOUR),
                    linestyle="--" if category == "all" else "-",
                    label=None if title in labelled else title,
                )
                labelled.add(title)
        before += rows["epoch"].max()
    panel.set(xlabel="Epoch", ylabel="MAE (EF points)", ylim=(0, None))
    panel.legend(ncols=4)
    return figure


if __name__ == "__main__":
    run_script(main)
