"""Measure simulated clips beside real ones, and draw a contact sheet of them.

Example:
    python -m benchmarks.compare_realism --profile wide --num_videos 48 --contact_sheet outputs/wide.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from benchmarks.simulation_realism import REAL_RANGES, RealRange, measure_realism
from echomen_hf.cli.command_line import run_script
from echomen_hf.simulation import PROFILES, SimulatedEcho, simulate_echo


COLUMNS, ROWS = 6, 4


def main() -> None:
    """Parse the arguments, simulate, print the table, draw the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        default="reference",
        help="ranges of the simulation (default: %(default)s)",
    )
    parser.add_argument("--num_videos", type=int, default=24, help="clips to simulate (default: %(default)s)")
    parser.add_argument("--num_frames", type=int, default=150, help="frames of each clip (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=112, help="height and width (default: %(default)s)")
    parser.add_argument(
        "--contact_sheet", type=Path, default=None, help="PNG with a random frame of 24 clips, and one beat below"
    )
    args = parser.parse_args()

    measured: dict[str, list[float]] = {name: [] for name in REAL_RANGES}
    clips: list[SimulatedEcho] = []
    for index in tqdm(range(args.num_videos), desc="Simulating", unit="video"):
        echo = simulate_echo(
            np.random.default_rng([args.seed, index]),
            num_frames=args.num_frames,
            image_size=args.image_size,
            profile=args.profile,
        )
        if len(clips) < COLUMNS * ROWS:
            clips.append(echo)
        for name, value in measure_realism(echo).items():
            measured[name].append(value)
    print_table(measured)
    if args.contact_sheet is not None:
        args.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        save_enlarged(contact_sheet(clips, np.random.default_rng(args.seed)), args.contact_sheet)
        print(f"contact sheet of SYNTHETIC clips in {args.contact_sheet}")


def print_table(measured: dict[str, list[float]]) -> None:
    """Print mean and range of each statistic, real and simulated, and the share of clips within the real range."""
    print(f"{'statistic':32s} {'real':>24s} {'simulated':>24s} {'within':>7s}")
    for name, real in REAL_RANGES.items():
        values = np.array(measured[name])
        simulated = f"{values.mean():.3g} ({values.min():.3g}-{values.max():.3g})"
        within = "" if real.low is None else f"{np.mean((values >= real.low) & (values <= real.high)):.0%}"
        print(f"{name:32s} {describe(real):>24s} {simulated:>24s} {within:>7s}")


def describe(real: RealRange) -> str:
    """A real mean and range as text."""
    mean = "" if real.mean is None else f"{real.mean:g}"
    return mean if real.low is None else f"{mean} ({real.low:g}-{real.high:g})".strip()


def contact_sheet(clips: list[SimulatedEcho], rng: np.random.Generator) -> np.ndarray:
    """Lay out one random frame per clip, and below them two rows with one beat of the first clip."""
    frames = [echo.frames[rng.integers(len(echo.frames))] for echo in clips]
    frames += [np.zeros_like(frames[0])] * (-len(frames) % COLUMNS)
    first = clips[0]
    beat = np.linspace(0, 60 / first.parameters.motion.heart_rate * first.fps, 2 * COLUMNS, endpoint=False).astype(int)
    start = min(first.end_diastolic_frame, max(len(first.frames) - 1 - beat[-1], 0))
    frames += [first.frames[min(start + step, len(first.frames) - 1)] for step in beat]
    return np.vstack([np.hstack(frames[row : row + COLUMNS]) for row in range(0, len(frames), COLUMNS)])


def save_enlarged(image: np.ndarray, path: Path) -> None:
    """Save a grayscale image at twice its size."""
    Image.fromarray(image).resize((image.shape[1] * 2, image.shape[0] * 2), Image.Resampling.BILINEAR).save(path)


if __name__ == "__main__":
    run_script(main)
