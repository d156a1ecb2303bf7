"""Options that several commands share, each with one meaning."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer


if TYPE_CHECKING:
    import torch


# Spelled out, since the module that defines them imports scipy; a test compares them.
Profile = Literal["reference", "wide", "held_out_vendor"]
DataDir = Annotated[str, typer.Option("--data_dir", help="Folder of the data set, or a table of videos.")]
# Spelled as in the arguments of a training, whose module imports torch; a test compares them.
LAYOUT_OPTIONS: dict[str, Any] = {
    "layout": Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="Layout of the data: echonet_dynamic, echonet_pediatric, camus, mimic_lvvol or table. Defaults to "
            "the one that the folder is recognised by.",
        ),
    ],
    "view": Annotated[
        str | None,
        typer.Option("--view", help="View of the heart: A4C or PSAX (echonet_pediatric), 4CH or 2CH (camus)."),
    ],
    "fold": Annotated[int | None, typer.Option("--fold", help="Test fold, 0 to 9 (echonet_pediatric).")],
    "columns": Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Columns of a table by meaning, such as path=file,ejection_fraction=LVEF,patient=id.",
        ),
    ],
    "split_by": Annotated[
        str | None,
        typer.Option(
            "--split_by",
            help="patient: divide the videos at random by patient; none: all are test videos. Defaults to the splits "
            "of the data.",
        ),
    ],
    "split_file": Annotated[
        str | None,
        typer.Option(
            "--split_file",
            help="File with the division by patient. Defaults to echomen_splits.csv beside the data.",
        ),
    ],
}
Model = Annotated[str, typer.Option("--model", help="Folder or Hub id of a trained model.")]
ModelFolder = Annotated[Path, typer.Option("--model", help="Folder of a trained model.")]
OptionalModel = Annotated[
    str | None,
    typer.Option("--model", help="Folder or Hub id of a trained model. Defaults to the small one of the package."),
]
Protocol = Annotated[
    str,
    typer.Option("--protocol", help="Clips per video: all, everyN, windows, beats (predict --outline), center, or N."),
]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Clips per forward pass.")]
NumWorkers = Annotated[int, typer.Option("--num_workers", help="Processes that read videos.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Where to run, such as cpu or cuda:0. Defaults to an accelerator if there is one."),
]
Coverage = Annotated[float, typer.Option("--coverage", help="Share of videos that intervals are to hold.")]


def takes_layout(main: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of layouts to a command, which receives them as the dictionary `layout_options`."""
    shared = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in LAYOUT_OPTIONS.items()
    }
    signature = inspect.signature(main, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "layout_options"]

    @functools.wraps(main)
    def command(**arguments: Any) -> Any:
        options = {name: arguments.pop(name, None) for name in shared}
        return main(**arguments, layout_options={name: v for name, v in options.items() if v is not None})

    # What typer reads.
    command.__signature__ = signature.replace(parameters=[*own, *shared.values()])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared.values())}
    return command


def keep_inputs(output: str | Path, *inputs: str | Path | None) -> None:
    """Refuse an output that is one of the inputs, which it would replace."""
    if any(given is not None and Path(given).resolve() == Path(output).resolve() for given in inputs):
        raise ValueError(f"{output} is an input of this command, and its output would replace it; name another place.")


def choose_device(device: str | None) -> torch.device:
    """Take the device that is named, if it is here, else an accelerator, else the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    here = ["cpu"]
    if accelerator is not None:
        numbers = range(torch.accelerator.device_count())
        here += [accelerator.type, *(f"{accelerator.type}:{number}" for number in numbers)]
    if device not in here:
        raise ValueError(f"--device {device}: PyTorch finds no such device here; name one of {', '.join(here)}.")
    return torch.device(device)


def runs_on_cpu(device: str | None) -> bool:
    """Choose between the CPU and the first accelerator, the only ones that training arguments know."""
    chosen = choose_device(device)
    if chosen.index:
        raise ValueError(
            f"--device {device}: this command uses the first accelerator that it sees; set CUDA_VISIBLE_DEVICES="
            f"{chosen.index} in the environment, and leave out --device."
        )
    return chosen.type == "cpu"
