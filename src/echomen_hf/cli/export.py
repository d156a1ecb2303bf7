"""The command `echomen export`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from .options import BatchSize, Protocol, takes_layout
from .predict import Precision


# Spelled out, as are some defaults, since the modules that define them import torch; a test compares them.
Format = Literal["openvino", "onnx"]


@takes_layout
def main(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model.")],
    output: Annotated[str, typer.Option("--output", help="Folder for the export; an earlier export is replaced.")],
    export_format: Annotated[Format, typer.Option("--format", help="Runtime to export for.")] = "openvino",
    precision: Annotated[Precision, typer.Option("--precision", help="Precision of the encoder.")] = "fp32",
    data_dir: Annotated[
        str | None, typer.Option("--data_dir", help="Folder of the data set, or a table of videos; int8 needs it.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to measure on: validation or train.")] = "validation",
    protocol: Protocol = "windows",
    max_videos: Annotated[
        int | None,
        typer.Option("--max_videos", help="Videos of the split to use, spread over all EFs. Defaults to all."),
    ] = None,
    max_mae_rise: Annotated[
        float,
        typer.Option(
            "--max_mae_rise", help="Rise of the mean absolute error, in EF points, above which the export is refused."
        ),
    ] = 0.1,
    max_change: Annotated[
        float | None,
        typer.Option(
            "--max_change",
            help="Change of any video's EF, in points, above which the export is refused. "
            "Defaults to 0.01 for fp32, 1 for bf16 and 2 for int8.",
        ),
    ] = None,
    calibration_clips: Annotated[
        int,
        typer.Option(
            "--calibration_clips", help="Clips of the other split that show int8 the ranges of the activations."
        ),
    ] = 128,
    batch_size: BatchSize = 4,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the noise to measure on if there are no data.")] = 42,
    *,
    layout_options: dict[str, Any],
) -> None:
    """Export a model to OpenVINO or ONNX.

    \b
    echomen export runs/paper --output runs/paper-int8 --precision int8 --data_dir EchoNet-Dynamic

    The folder is loaded like a model: Predictor("runs/paper-int8"), or echomen predict --model runs/paper-int8. Its
    export.json holds the change of the ejection fraction and of the mean absolute error against the model in single
    precision; an export whose error exceeds the bound is refused. int8 keeps layers in bf16 whose quantisation harms.
    """
    from transformers.utils import logging

    from ..inference.export.exporting import export_model

    logging.disable_progress_bar()
    record = export_model(
        model,
        output,
        export_format=export_format,
        precision=precision,
        data_dir=data_dir,
        layout_options=layout_options,
        split=split,
        protocol=protocol,
        max_videos=max_videos,
        max_mae_rise=max_mae_rise,
        max_change=max_change,
        calibration_clips=calibration_clips,
        batch_size=batch_size,
        seed=seed,
    )
    error, measured_on = record["error"], record["measured_on"]
    if measured_on["clips_of_noise"]:
        where = f"{error['num_clips']} clips of noise"
    else:
        kind = "SYNTHETIC videos" if measured_on["synthetic_data"] else "videos"
        where = f"{error['num_videos']} {kind} ({error['num_clips']} clips) of the split {measured_on['split']}"
    print(f"Change of EF on {where}: {error['mean_change']:.4f} points on average, {error['max_change']:.4f} at most")
    if error["mae"] is not None:
        print(f"Mean absolute error: {error['mae_reference']:.4f} before, {error['mae']:.4f} exported")
    if record["quantisation"] is not None:
        left = ", ".join(record["quantisation"]["bf16_layers"]) or "none"
        print(f"{len(record['quantisation']['int8_layers'])} convolutions in int8; in bf16: {left}")
    print(f"The export is in {output}")
