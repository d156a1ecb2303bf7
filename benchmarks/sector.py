"""Measure the sector finder on simulated clips that are shown on simulated screens, and draw a contact sheet of them.

The true box is that of everything the screen shows of the fan, dark parts included. Three of five screens show the
whole fan. The others show a square clip, whose sides cut off the corners of the fan: there the box ends at the sides
of the square, for beyond them the screen holds nothing. Where both the sides of the square and those of the fan are
dark, nothing tells one from the other, and the finder takes the fan to be whole.

Example:
    python -m benchmarks.sector --num_exports 500 --seed 0 --output outputs/sector
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from tqdm.auto import tqdm

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER, load_small
from echomen_hf.cli.command_line import run_script
from echomen_hf.inference.video_prediction import predict_video
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.sector_echomen import Sector, find_sector
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor
from echomen_hf.simulation import (
    Export,
    ExportSettings,
    SimulatedVideos,
    export_clip,
    sample_echo_parameters,
    sample_export_settings,
    simulate_echo,
)
from echomen_hf.simulation.export_screens import Box
from echomen_hf.simulation.fans import fan_mask, whole_fan_parameters


Kind = Literal["whole fan", "square clip", "own framing"]

KINDS: tuple[Kind, ...] = ("whole fan", "whole fan", "whole fan", "square clip", "own framing")
"""What five screens in a row show: the fan with its corners, the square clip without them, and the square clip with
the margins that training clips have around the fan, which no screen tells."""

USUAL_SCREEN = (1024, 768)
"""Width and height of the screens whose search has a line of its own."""

TILE = (400, 300)
COLUMNS, ROWS = 4, 6


@dataclasses.dataclass(frozen=True)
class Case:
    """A clip, and the same clip on a screen."""

    kind: Kind
    settings: ExportSettings
    clip: np.ndarray
    export: Export


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one export measures: overlap of the boxes, times of one core, and three estimates in percent.

    `screen` is its width and height, `milliseconds` the time of the search for the fan. `time_ratio` is the time from
    decoded frames to those of the model's size, with the finder over without it.
    """

    kind: Kind
    screen: tuple[int, int]
    overlap: float
    confidence: float
    milliseconds: float
    time_ratio: float
    ef_of_clip: float
    ef_with_finder: float
    ef_without: float


def main() -> None:
    """Parse the arguments, simulate, measure, print the table, draw the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_exports", type=int, default=60, help="exports to measure (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for table and contact sheet")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    measured: list[Measurement] = []
    tiles: list[Image.Image] = []
    # threads of torch do not survive a fork
    with ProcessPoolExecutor(args.num_workers, multiprocessing.get_context("spawn")) as pool:
        results = pool.map(functools.partial(run_case, args.seed), range(args.num_exports))
        for measurement, tile in tqdm(results, "Measuring", args.num_exports, unit="export"):
            measured.append(measurement)
            # written as it grows, for a run of 500 takes long
            (args.output / "sector.md").write_text(markdown_table(measured) + "\n", encoding="utf-8")
            if len(tiles) < COLUMNS * ROWS:
                tiles.append(tile)
                contact_sheet(tiles).save(args.output / "sector.jpg", quality=80)
    print(markdown_table(measured))


@functools.cache
def small_model() -> tuple[EchoMENModel, EchoMENVideoProcessor]:
    """Load the small model, and its processor without the finder."""
    torch.set_num_threads(1)
    processor = EchoMENVideoProcessor.from_pretrained(SMALL_MODEL_FOLDER)
    processor.do_find_sector = False
    return load_small(), processor


def run_case(seed: int, number: int) -> tuple[Measurement, Image.Image]:
    """Simulate, measure and draw one export."""
    case = make_case(seed, number)
    sector = find_sector(case.export.frames)
    return measure(case, sector, *small_model()), draw_tile(case.export, sector)


def make_case(seed: int, number: int) -> Case:
    """Simulate one clip and put it on a screen."""
    row = SimulatedVideos(number + 1, seed=seed, seconds=(1.0, 1.6), fps=(10.0, 90.0)).row(number)
    kind = KINDS[number % len(KINDS)]
    rng = np.random.default_rng(row["seed"])
    parameters = sample_echo_parameters(rng, row["ejection_fraction"], row["num_frames"], row["fps"], "wide")
    settings = sample_export_settings(np.random.default_rng([seed, number]))
    if kind == "own framing":
        frames = simulate_echo(rng, parameters=parameters).frames
        clip, mask = frames, fan_mask(parameters, frames.shape[1])
    else:
        parameters, size, (left, top, right, bottom) = whole_fan_parameters(parameters)
        frames = simulate_echo(rng, parameters=parameters, image_size=size).frames
        mask = fan_mask(parameters, size)
        clip = np.ascontiguousarray(frames[:, top:bottom, left:right])
        if kind == "square clip":
            frames, mask = clip, mask[top:bottom, left:right]
    return Case(kind, settings, clip, export_clip(frames, row["fps"], settings, mask))


def measure(case: Case, sector: Sector, model: EchoMENModel, processor: EchoMENVideoProcessor) -> Measurement:
    """Measure the finder on one export."""
    frames, fps = case.export.frames, case.export.fps
    ways = {
        "search": lambda: find_sector(frames),
        "with finder": lambda: processor.resize_frames(find_sector(frames).crop(frames)),
        "without": lambda: processor.resize_frames(frames),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            seconds[name].append(time.thread_time() - start)
    search, with_finder, without = (float(np.median(values)) for values in seconds.values())

    def estimate(shown: np.ndarray) -> float:
        return predict_video(model, processor, EchoVideo(shown, fps, "export")).ejection_fraction

    return Measurement(
        case.kind,
        (case.settings.width, case.settings.height),
        overlap(sector.box, case.export.box),
        sector.confidence,
        1000 * search,
        with_finder / without,
        estimate(case.clip),
        estimate(sector.crop(frames)),
        estimate(frames),
    )


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return common / (sum(areas) - common)


def markdown_table(measured: Sequence[Measurement]) -> str:
    """One line per kind of export, and one for all; below, the time of the search on the usual screen."""
    lines = [
        "| shown | exports | IoU >= 0.9 | median IoU | ms | time | EF change with finder | bias | without | bias |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in (*dict.fromkeys(KINDS), "all"):
        of_kind = [one for one in measured if kind in (one.kind, "all")]
        if not of_kind:
            continue
        overlaps = np.array([one.overlap for one in of_kind])
        found = np.array([one.ef_with_finder - one.ef_of_clip for one in of_kind])
        plain = np.array([one.ef_without - one.ef_of_clip for one in of_kind])
        lines.append(
            f"| {kind} | {len(of_kind)} | {np.mean(overlaps >= 0.9):.1%} | {np.median(overlaps):.3f} "
            f"| {np.median([one.milliseconds for one in of_kind]):.1f} "
            f"| {np.median([one.time_ratio for one in of_kind]):.2f} | {np.abs(found).mean():.2f} "
            f"| {found.mean():+.2f} | {np.abs(plain).mean():.2f} | {plain.mean():+.2f} |"
        )
    usual = [one.milliseconds for one in measured if one.screen == USUAL_SCREEN]
    if usual:
        width, height = USUAL_SCREEN
        lines += ["", f"On the {len(usual)} screens of {width} x {height} the search takes {np.median(usual):.1f} ms."]
    return "\n".join(lines)


def draw_tile(export: Export, sector: Sector) -> Image.Image:
    """The middle frame with the true box in yellow, the square of the crop in cyan and what it keeps in red."""
    picture = Image.fromarray(export.frames[len(export.frames) // 2]).convert("RGB")
    draw = ImageDraw.Draw(picture)
    left, top, side = sector.square
    width = max(round(picture.height / 300), 1)
    draw.rectangle(export.box, outline=(255, 220, 0), width=width)
    if sector.shape == "fan":
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=(0, 200, 255), width=width)
        kept = sector.mask()
        edge = Image.fromarray(kept & ~binary_erosion(kept, iterations=2 * width, border_value=1))
        picture.paste((255, 40, 40), (left, top), edge)
    picture.thumbnail(TILE)
    tile = Image.new("RGB", TILE)
    tile.paste(picture)
    return tile


def contact_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles in rows of four."""
    sheet = Image.new("RGB", (TILE[0] * COLUMNS, TILE[1] * ROWS))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % COLUMNS * TILE[0], number // COLUMNS * TILE[1]))
    return sheet


if __name__ == "__main__":
    run_script(main)
