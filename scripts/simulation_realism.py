"""Measure simulated clips beside real ones, and draw contact sheets of them.

Example:
    python scripts/simulation_realism.py --num_videos 24 --seed 7 --output outputs/simulation_realism
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from echomen_hf.simulation import SimulatedEcho, simulate_echo
from echomen_hf.simulation.realism import REAL_RANGES, RealRange, measure_realism


def main() -> None:
    """Parse the arguments, simulate, print the table, draw the contact sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_videos", type=int, default=24, help="clips to simulate (default: %(default)s)")
    parser.add_argument("--num_frames", type=int, default=150, help="frames of each clip (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=112, help="height and width (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=None, help="folder for contact sheets (default: none)")
    args = parser.parse_args()

    measured: dict[str, list[float]] = {name: [] for name in REAL_RANGES}
    clips: list[SimulatedEcho] = []
    for index in tqdm(range(args.num_videos), desc="Simulating", unit="video"):
        echo = simulate_echo(
            np.random.default_rng([args.seed, index]), num_frames=args.num_frames, image_size=args.image_size
        )
        clips.append(echo)
        for name, value in measure_realism(echo).items():
            measured[name].append(value)
    print_table(measured)
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        draw_extremes(clips, args.output / "end_diastole_end_systole.png")
        draw_beats(clips[:6], args.output / "beats.png")
        print(f"contact sheets in {args.output}")


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


def draw_extremes(clips: list[SimulatedEcho], path: Path) -> None:
    """Draw end diastole and end systole of each clip side by side."""
    pairs = [np.hstack([e.frames[e.end_diastolic_frame], e.frames[e.end_systolic_frame]]) for e in clips]
    columns = 4
    blank = np.zeros_like(pairs[0])
    pairs += [blank] * (-len(pairs) % columns)
    rows = [np.hstack(pairs[start : start + columns]) for start in range(0, len(pairs), columns)]
    save_enlarged(np.vstack(rows), path)


def draw_beats(clips: list[SimulatedEcho], path: Path) -> None:
    """Draw twelve evenly spaced frames of 60 consecutive ones, a row per clip."""
    save_enlarged(np.vstack([np.hstack(list(echo.frames[:60:5])) for echo in clips]), path)


def save_enlarged(image: np.ndarray, path: Path) -> None:
    """Save a grayscale image at twice its size."""
    Image.fromarray(image).resize((image.shape[1] * 2, image.shape[0] * 2), Image.Resampling.BILINEAR).save(path)


if __name__ == "__main__":
    main()
