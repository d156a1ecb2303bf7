"""Serve a web page that reads echo clips with a trained model.

    python scripts/app.py --model runs/demo/model

Without `--model` it is the small one that comes with the package, which was trained on simulated hearts only.
The page opens on http://127.0.0.1:7860, for this machine only; --host 0.0.0.0 opens it to the network.
Not a medical device: the numbers are for research.
"""

import argparse
import signal

from transformers.utils import logging

from echomen_hf.app import UploadLimits, build_app
from echomen_hf.app.saliency import DEFAULT_STEPS
from echomen_hf.cli.command_line import run_script


def main(arguments: list[str] | None = None) -> None:
    """Build the page and serve it until interrupted.

    Args:
        arguments: Command line without the name of the program.
    """
    limits = UploadLimits()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Folder or Hub id of a trained model; the package's own without.")
    parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
    parser.add_argument("--port", type=int, default=7860, help="Port to listen on.")
    parser.add_argument("--share", action="store_true", help="Open a public tunnel through gradio's servers.")
    parser.add_argument("--device", help="Where to run, such as cpu or cuda:0; an accelerator if there is one.")
    parser.add_argument("--notice", help='Shown beside the disclaimer, such as "Trained on SYNTHETIC data only."')
    parser.add_argument(
        "--saliency_steps",
        type=int,
        default=DEFAULT_STEPS,
        help="Passes for each window to find out where the model looked; 0 for none, with a large model on a CPU.",
    )
    parser.add_argument("--concurrency", type=int, default=2, help="Clips that are read at a time.")
    parser.add_argument("--max_queue", type=int, default=32, help="Visitors who may wait for that.")
    parser.add_argument("--max_megabytes", type=float, default=limits.max_megabytes, help="Largest file, in MB.")
    parser.add_argument("--max_frames", type=int, default=limits.max_frames, help="Longest clip, in frames.")
    parser.add_argument("--max_frame_pixels", type=int, default=limits.max_frame_pixels, help="Largest frame.")
    parser.add_argument(
        "--max_video_pixels", type=int, default=limits.max_video_pixels, help="Largest frames x height x width."
    )
    args = parser.parse_args(arguments)

    logging.disable_progress_bar()
    app = build_app(
        args.model,
        limits=UploadLimits(args.max_megabytes, args.max_frames, args.max_frame_pixels, args.max_video_pixels),
        notice=args.notice,
        device=args.device,
        saliency_steps=args.saliency_steps,
        concurrency=args.concurrency,
        max_queue=args.max_queue,
    )
    # A stop by the system is to clean up like one from the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.launch(server_name=args.host, server_port=args.port, share=args.share)


if __name__ == "__main__":
    run_script(main)
