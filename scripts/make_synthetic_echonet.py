"""Write a synthetic data set in EchoNet-Dynamic's layout.

Example:
    python scripts/make_synthetic_echonet.py --output data/synthetic_echonet --num_videos 440 --seed 7
"""

from __future__ import annotations

import argparse
import time

from echomen_hf.cli.command_line import run_script
from echomen_hf.simulation import PROFILES, write_synthetic_echonet


def main() -> None:
    """Parse the arguments, write the data set, report the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the data set")
    parser.add_argument("--num_videos", type=int, default=440, help="number of videos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=112, help="height and width (default: %(default)s)")
    parser.add_argument("--min_frames", type=int, default=28, help="shortest video (default: %(default)s)")
    parser.add_argument("--max_frames", type=int, default=300, help="longest video (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=None, help="processes (default: one per usable processor)")
    parser.add_argument(
        "--label_noise", type=float, default=0.0, help="readers' error, sd in points of EF (default: %(default)s)"
    )
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        default="reference",
        help="patients and machines: the demo's, wide ranges for training, or a vendor never trained on "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--couple_size", type=float, default=0.0, help="how much larger weak hearts are (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a synthetic data set with other settings")
    args = parser.parse_args()

    start = time.perf_counter()
    folder = write_synthetic_echonet(
        args.output,
        num_videos=args.num_videos,
        seed=args.seed,
        image_size=args.image_size,
        num_workers=args.num_workers,
        label_noise=args.label_noise,
        frames_range=(args.min_frames, args.max_frames),
        profile=args.profile,
        couple_size=args.couple_size,
        overwrite=args.overwrite,
    )
    seconds = time.perf_counter() - start
    print(f"{args.num_videos} videos in {folder} ({seconds:.1f} s)")


if __name__ == "__main__":
    run_script(main)
