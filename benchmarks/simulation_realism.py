"""Compare image statistics of simulated clips with those of real ones, and draw a contact sheet.

Example:
    python -m benchmarks.simulation_realism --profile wide --num_videos 48 --contact_sheet outputs/wide.png
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, gaussian_filter
from tqdm.auto import tqdm

from echomen_hf.cli.command_line import run_script
from echomen_hf.simulation import PROFILES, SimulatedEcho, simulate_echo


COLUMNS, ROWS = 6, 4
_LIT = 10  # grey level that a pixel must exceed once to count as lit, above the noise of MJPEG
_LAGS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class RealRange:
    """Mean and range of one statistic over nine real clips (EchoNet-Dynamic's public examples)."""

    mean: float | None = None  # `None` where only the range is known
    low: float | None = None  # `None` where only the mean is known
    high: float | None = None


REAL_RANGES: dict[str, RealRange] = {
    "lit share": RealRange(0.62, 0.48, 0.71),
    "mean": RealRange(32, 20, 46),
    "standard deviation": RealRange(50, 44, 68),
    "sector 1 %": RealRange(0),
    "sector 5 %": RealRange(1),
    "sector 10 %": RealRange(2),
    "sector 25 %": RealRange(6, 3, 9),
    "sector 50 %": RealRange(30, 15, 58),
    "sector 75 %": RealRange(79),
    "sector 90 %": RealRange(136),
    "sector 95 %": RealRange(166),
    "sector 99 %": RealRange(213, 193, 251),
    "mean inside cavity": RealRange(18, 6, 30),
    "mean in ring": RealRange(72, 40, 104),
    "LV area, largest": RealRange(None, 0.04, 0.19),
    "LV area, smallest": RealRange(None, 0.04, 0.19),
    "LV rows": RealRange(None, 36, 64),
    "LV columns": RealRange(None, 20, 46),
    "LV centre row": RealRange(None, 42, 62),
    "LV centre column": RealRange(None, 57, 67),
    "horizontal autocorrelation 1": RealRange(0.77),
    "horizontal autocorrelation 2": RealRange(0.47),
    "horizontal autocorrelation 3": RealRange(0.21),
    "horizontal autocorrelation 4": RealRange(0.03),
    "vertical autocorrelation 1": RealRange(0.73),
    "vertical autocorrelation 2": RealRange(0.55),
    "vertical autocorrelation 3": RealRange(0.42),
    "vertical autocorrelation 4": RealRange(0.32),
    "high-pass frame correlation 1": RealRange(0.94, 0.89, 0.97),
    "high-pass frame correlation 2": RealRange(0.85),
    "high-pass frame correlation 4": RealRange(0.70),
    "high-pass frame correlation 8": RealRange(0.53),
    "high-pass frame correlation 16": RealRange(0.39, 0.26, 0.50),
    "raw frame correlation 1": RealRange(0.98),
    "raw frame correlation 2": RealRange(0.94),
    "raw frame correlation 4": RealRange(0.88),
    "raw frame correlation 8": RealRange(0.78),
    "raw frame correlation 16": RealRange(0.68),
}
"""Statistics of nine real clips of 112 x 112 pixels."""


def cavity_mask(tracing: np.ndarray, image_size: int) -> np.ndarray:
    """Mask of the outline of a tracing, which has the shape (21, 4): X1, Y1, X2, Y2 in pixels, long axis first."""
    (apex_x, apex_y, _, _), chords = tracing[0], tracing[1:]
    # the chords lie in the middle of the disks: the basal half disk is added at the width of the last chord
    half_disk = (tracing[0, 2:] - tracing[0, :2]) / (2 * len(chords))
    base = [chords[-1, :2] + half_disk, chords[-1, 2:] + half_disk]
    outline = [(apex_x, apex_y), *chords[:, :2], *base, *chords[::-1, 2:]]
    oversampling = 4
    image = Image.new("1", (image_size * oversampling,) * 2)
    points = [(float((x + 0.5) * oversampling), float((y + 0.5) * oversampling)) for x, y in outline]
    ImageDraw.Draw(image).polygon(points, fill=1)
    fine = np.asarray(image, dtype=np.float32).reshape(image_size, oversampling, image_size, oversampling)
    return fine.mean(axis=(1, 3)) >= 0.5


def measure_realism(echo: SimulatedEcho) -> dict[str, float]:
    """Statistics of a clip by the names in `REAL_RANGES`. Lengths are scaled to 112 pixels."""
    frames = echo.frames.astype(np.float32)  # (T, H, W)
    size = frames.shape[1]
    sector = frames.max(axis=0) > _LIT
    values = {
        "lit share": float(sector.mean()),
        "mean": float(frames.mean()),
        "standard deviation": float(frames.std()),
    }
    levels = (1, 5, 10, 25, 50, 75, 90, 95, 99)
    for level, quantile in zip(levels, np.percentile(frames[:, sector], levels), strict=True):
        values[f"sector {level} %"] = float(quantile)
    values.update(_cavity_statistics(echo, frames))

    high_pass = frames - gaussian_filter(frames, (0, 4 * size / 112, 4 * size / 112))
    step = max(len(frames) // 12, 1)
    for axis, direction in ((2, "horizontal"), (1, "vertical")):
        for lag in (1, 2, 3, 4):
            values[f"{direction} autocorrelation {lag}"] = _autocorrelation(high_pass[::step], sector, axis, lag)
    for name, stack in (("high-pass", high_pass), ("raw", frames)):
        pixels = stack[:, sector]  # (T, pixels)
        pixels = pixels - pixels.mean(axis=1, keepdims=True)
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
        for lag in _LAGS:
            values[f"{name} frame correlation {lag}"] = float((pixels[lag:] * pixels[:-lag]).sum(axis=1).mean())
    return values


def _cavity_statistics(echo: SimulatedEcho, frames: np.ndarray) -> dict[str, float]:
    size = frames.shape[1]
    inside, ring, areas = [], [], []
    for tracing, frame in zip(echo.tracings, (echo.end_diastolic_frame, echo.end_systolic_frame), strict=True):
        mask = cavity_mask(tracing, size)
        around = binary_dilation(mask, iterations=5) & ~binary_dilation(mask, iterations=1)
        inside.append(frames[frame][mask].mean())
        ring.append(frames[frame][around].mean())
        areas.append(mask.mean())
    middle = cavity_mask(echo.tracings.mean(axis=0), size)
    rows, columns = (np.flatnonzero(middle.any(axis=axis)) * 112 / size for axis in (1, 0))
    return {
        "mean inside cavity": float(np.mean(inside)),
        "mean in ring": float(np.mean(ring)),
        "LV area, largest": float(max(areas)),
        "LV area, smallest": float(min(areas)),
        "LV rows": float(rows[-1] - rows[0] + 1),
        "LV columns": float(columns[-1] - columns[0] + 1),
        "LV centre row": float((rows[0] + rows[-1]) / 2),
        "LV centre column": float((columns[0] + columns[-1]) / 2),
    }


def _autocorrelation(high_pass: np.ndarray, sector: np.ndarray, axis: int, lag: int) -> float:
    """Correlation of pixels `lag` apart along `axis`, both inside the sector."""
    near = [slice(None)] * 3
    far = [slice(None)] * 3
    near[axis], far[axis] = slice(None, -lag), slice(lag, None)
    both = sector[tuple(near[1:])] & sector[tuple(far[1:])]
    return float(np.corrcoef(high_pass[tuple(near)][:, both].ravel(), high_pass[tuple(far)][:, both].ravel())[0, 1])


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
