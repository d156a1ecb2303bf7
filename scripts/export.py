"""Export a trained model to OpenVINO or ONNX, and measure what that costs.

    python scripts/export.py runs/paper --output runs/paper-int8 --format openvino --precision int8 \
        --data_dir EchoNet-Dynamic

The folder is loaded like a model: `Predictor("runs/paper-int8")`, or `scripts/predict.py --model runs/paper-int8`. Its
export.json holds the change of the ejection fraction and of the mean absolute error against the model in single
precision; an export whose error exceeds the bound is refused. int8 leaves layers in bf16 whose quantisation harms.
"""

import argparse

from transformers.utils import logging

from echomen_hf.cli.command_line import run_script
from echomen_hf.inference.export.exporting import CALIBRATION_CLIPS, EXPORT_PRECISIONS, export_model
from echomen_hf.inference.export.measured_error import DEFAULT_MAX_CHANGE, DEFAULT_MAX_MAE_RISE


def main(arguments: list[str] | None = None) -> int:
    """Export a model and print its error.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        Exit status.
    """
    changes = ", ".join(f"{value:g} for {precision}" for precision, value in DEFAULT_MAX_CHANGE.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Folder or Hub id of a trained model.")
    parser.add_argument("--output", required=True, help="Folder for the export; an earlier export is replaced.")
    parser.add_argument("--format", default="openvino", choices=EXPORT_PRECISIONS, help="Runtime to export for.")
    parser.add_argument("--precision", default="fp32", choices=DEFAULT_MAX_CHANGE, help="Precision of the encoder.")
    parser.add_argument("--data_dir", help="Folder in EchoNet-Dynamic's layout; int8 needs it.")
    parser.add_argument("--split", default="validation", help="Split to measure on: validation or train.")
    parser.add_argument("--protocol", default="windows", help="Clips per video: all, everyN, windows, center, or N.")
    parser.add_argument("--max_videos", type=int, help="Videos of the split to use, spread over all EFs; all without.")
    parser.add_argument(
        "--max_mae_rise",
        type=float,
        default=DEFAULT_MAX_MAE_RISE,
        help="Rise of the mean absolute error, in EF points, above which the export is refused.",
    )
    parser.add_argument(
        "--max_change",
        type=float,
        help=f"Change of any video's EF, in points, above which the export is refused; {changes}.",
    )
    parser.add_argument(
        "--calibration_clips",
        type=int,
        default=CALIBRATION_CLIPS,
        help="Clips of the other split that show int8 the ranges of the activations.",
    )
    parser.add_argument("--batch_size", type=int, default=4, help="Clips per forward pass.")
    parser.add_argument("--seed", type=int, default=42, help="Seed of the noise that is measured on without data.")
    args = parser.parse_args(arguments)

    logging.disable_progress_bar()
    record = export_model(
        args.model,
        args.output,
        export_format=args.format,
        precision=args.precision,
        data_dir=args.data_dir,
        split=args.split,
        protocol=args.protocol,
        max_videos=args.max_videos,
        max_mae_rise=args.max_mae_rise,
        max_change=args.max_change,
        calibration_clips=args.calibration_clips,
        batch_size=args.batch_size,
        seed=args.seed,
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
    print(f"The export is in {args.output}")
    return 0


if __name__ == "__main__":
    run_script(main)
