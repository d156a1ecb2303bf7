"""Measure which recordings a model calls good: hearts that it can measure, and recordings that have no EF.

Example:
    python -m benchmarks.quality --model src/echomen_hf/checkpoints/small --num_videos 400 --output outputs/quality

With --outline, the outline of the ventricle is looked at too, as `echomen predict --outline` does, and a second table
says how often readings err by more than 10 EF points where they disagree, and where they do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import torch
from tqdm.auto import tqdm

from benchmarks.measurement import write_measurement
from echomen_hf import EchoMENModel, EchoMENVideoProcessor, Predictor
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.report import MISSING_VALUE, markdown_table
from echomen_hf.evaluation.simulation_examination import (
    HELD_OUT,
    IN_RANGE,
    PROFILE_TITLES,
    examination_videos,
    simulated_frames,
)
from echomen_hf.inference import load_checkpoint, predict_video
from echomen_hf.inference.video_prediction import VideoPrediction
from echomen_hf.model.echo_video_echomen import EchoVideo, cut_out_sector
from echomen_hf.model.frame_arrays_echomen import to_echo_video
from echomen_hf.model.video_source_echomen import VideoReadError
from echomen_hf.outline import outline_video, shows_other_view
from echomen_hf.simulation import export_clip, sample_export_settings, simulate_echo
from echomen_hf.simulation.other_recordings import OTHER_RECORDINGS, OtherRecording, simulate_other_recording


SEED_OFFSET = 11_000_003  # neither calibration nor examination sees these hearts
FPS = 50.0
QUALITIES = ("good", "doubtful", "unusable", "refused")
LARGE_ERROR = 10.0  # EF points
STILL_SCREEN, COLOUR_SCREEN = "a still on a screen with a moving ECG", "colour Doppler on a screen"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How many recordings of one kind got each quality, and how often each reason was given."""

    shown: str
    qualities: Counter[str]
    reasons: Counter[str]

    @property
    def num_videos(self) -> int:
        """Number of recordings."""
        return self.qualities.total()


@dataclasses.dataclass(frozen=True)
class TwoReadings:
    """How many hearts of one kind are read wrongly, where both readings disagree and where they do not.

    `wrong_...` counts hearts of which either reading is wrong, `misread_...` those of which the estimate is.
    """

    shown: str
    disagreeing: int
    wrong_disagreeing: int
    misread_disagreeing: int
    agreeing: int
    wrong_agreeing: int
    misread_agreeing: int


def main() -> None:
    """Parse the arguments, simulate, predict, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--num_videos", type=int, default=100, help="hearts per machine (default: %(default)s)")
    parser.add_argument("--num_others", type=int, help="recordings of every other kind (default: as many)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--outline", action="store_true", help="look at the outline of the ventricle too")
    parser.add_argument("--output", type=Path, required=True, help="folder for quality.md and quality.json")
    args = parser.parse_args()
    if args.num_others is None:
        args.num_others = args.num_videos

    torch.set_num_threads(1)
    model, processor = load_checkpoint(args.model)
    titles = PROFILE_TITLES.items()
    hearts = {
        title: list(tqdm(good_videos(model, processor, profile, args), title, args.num_videos, unit="video"))
        for profile, title in titles
    }
    shown = {kind.replace("_", " "): other_recordings(model, processor, kind, args) for kind in OTHER_RECORDINGS}
    shown |= {kind: screens(model, processor, kind, args) for kind in (STILL_SCREEN, COLOUR_SCREEN)}
    measured = [count(title, predictions) for title, predictions in hearts.items()] + [
        count(title, tqdm(predictions, desc=title, total=args.num_others, unit="video"))
        for title, predictions in shown.items()
    ]
    measured.append(count("ultrasound images of pydicom", pydicom_images(args.model, args.outline)))
    table = quality_table(measured)
    readings = []
    if args.outline:
        truths = examination_videos(args.num_videos, args.seed + SEED_OFFSET)["ejection_fraction"]
        readings = [two_readings(title, predictions, truths) for title, predictions in hearts.items()]
        table += f"\n\n{readings_table(readings)}"
    document = {
        "settings": {
            "num_videos": args.num_videos,
            "num_others": args.num_others,
            "outline": args.outline,
            "seed": args.seed,
        },
        "measured": [vars(one) for one in measured],
        "two_readings": [vars(one) for one in readings],
    }
    write_measurement(args.output / "quality", table, args.model, document)


def predict(
    model: EchoMENModel, processor: EchoMENVideoProcessor, video: EchoVideo, args: argparse.Namespace
) -> VideoPrediction:
    """Predict one video as `Predictor` does, with its outline if that is asked for."""
    if args.outline:
        return predict_video(model, processor, video, outline=outline_video(video))
    return predict_video(model, processor, video, is_other_view=shows_other_view(video))


def good_videos(
    model: EchoMENModel, processor: EchoMENVideoProcessor, profile: str, args: argparse.Namespace
) -> Iterator[VideoPrediction]:
    """Predict simulated hearts that can be measured, on machines of one profile."""
    source = simulated_frames(processor, profile)
    for row in examination_videos(args.num_videos, args.seed + SEED_OFFSET):
        video = EchoVideo(source.read(row), row["fps"], row["file_name"])
        yield predict(model, processor, video, args)


def other_recordings(
    model: EchoMENModel, processor: EchoMENVideoProcessor, kind: OtherRecording, args: argparse.Namespace
) -> Iterator[VideoPrediction]:
    """Predict recordings of another kind, every second one of a view from a machine that training never shows."""
    size = processor.crop_size["height"]
    for number in range(args.num_others):
        profile = (IN_RANGE, HELD_OUT)[number % 2]
        frames = simulate_other_recording(kind, SEED_OFFSET + args.seed + number, 100, FPS, size, profile)
        video = EchoVideo(frames, FPS, kind)
        yield predict(model, processor, video, args)


def screens(
    model: EchoMENModel, processor: EchoMENVideoProcessor, kind: str, args: argparse.Namespace
) -> Iterator[VideoPrediction]:
    """Predict exports of screens whose fan stands still, or is there in colour Doppler only."""
    for number in range(args.num_others):
        seed = SEED_OFFSET + args.seed + number
        settings = sample_export_settings(np.random.default_rng([seed, 1]))
        if kind == STILL_SCREEN:
            frames = simulate_other_recording("still", seed, 70, FPS)
            settings = dataclasses.replace(settings, ecg="sweep", second_panel="none")
        else:
            frames = simulate_echo(seed, num_frames=70, profile=IN_RANGE).frames
            settings = dataclasses.replace(settings, second_panel="colour", second_size=1.0)
        export = export_clip(frames, FPS, settings, in_colour=True)
        if kind == COLOUR_SCREEN:
            export.frames[:, export.mask] = 0  # leaves the panel in colour
        video = cut_out_sector(to_echo_video(export.frames, FPS))
        yield predict(model, processor, video, args)


def pydicom_images(model: Path, outline: bool = False) -> Iterator[VideoPrediction | VideoReadError]:
    """Predict the ultrasound images that are installed with pydicom."""
    predictor = Predictor(model, device="cpu", outline=outline)
    for path in sorted(Path(pydicom.__file__).parent.glob("data/**/*.dcm")):
        if pydicom.dcmread(path, specific_tags=["Modality"], force=True).get("Modality") == "US":
            try:
                yield predictor(path)
            except VideoReadError as error:
                yield error


def count(shown: str, predictions: Iterable[VideoPrediction | VideoReadError]) -> Measurement:
    """Count qualities and reasons; numbers in a reason are left out."""
    qualities: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for prediction in predictions:
        if isinstance(prediction, VideoReadError):
            qualities["refused"] += 1
            continue
        qualities[prediction.quality] += 1
        reasons.update(re.sub(r"\d+(\.\d+)?", "N", reason) for reason in prediction.reasons)
    return Measurement(shown, qualities, reasons)


def quality_table(measured: Iterable[Measurement]) -> str:
    """Format one line per kind."""
    rows = []
    for one in measured:
        shares = [f"{one.qualities[quality] / max(one.num_videos, 1):.1%}" for quality in QUALITIES]
        reasons = "; ".join(f"{number} × {reason.rstrip('.')}" for reason, number in one.reasons.most_common())
        rows.append([one.shown, str(one.num_videos), *shares, reasons])
    return markdown_table(["shown", "videos", *QUALITIES, "reasons"], rows)


def two_readings(shown: str, predictions: Iterable[VideoPrediction], truths: Iterable[float]) -> TwoReadings:
    """Count errors of more than 10 EF points; videos with a single reading are left out."""
    counts: Counter[str] = Counter()
    for prediction, truth in zip(predictions, truths, strict=True):
        other = prediction.outline.ejection_fraction
        if prediction.interval is None or not math.isfinite(other):
            continue
        disagree = any(reason.startswith("Two readings disagree") for reason in prediction.reasons)
        group = "disagreeing" if disagree else "agreeing"
        error = abs(prediction.ejection_fraction - truth)
        counts[group] += 1
        counts[f"misread_{group}"] += error > LARGE_ERROR
        counts[f"wrong_{group}"] += max(error, abs(other - truth)) > LARGE_ERROR
    names = [field.name for field in dataclasses.fields(TwoReadings) if field.name != "shown"]
    return TwoReadings(shown, **{name: counts[name] for name in names})


def readings_table(readings: Iterable[TwoReadings]) -> str:
    """Format one line per kind, and one for all."""
    readings = list(readings)
    counts = [dataclasses.astuple(one)[1:] for one in readings]
    readings.append(TwoReadings("all", *map(sum, zip(*counts, strict=True))))
    rows = []
    for one in readings:
        disagreeing, agreeing = max(one.disagreeing, 1), max(one.agreeing, 1)
        flagged, others = one.wrong_disagreeing / disagreeing, one.wrong_agreeing / agreeing
        rows.append(
            [
                one.shown,
                f"{one.disagreeing} of {one.disagreeing + one.agreeing}",
                f"{flagged:.1%}, {others:.1%}",
                f"{flagged / others:.1f}" if others else MISSING_VALUE,
                f"{one.misread_disagreeing / disagreeing:.1%}, {one.misread_agreeing / agreeing:.1%}",
            ]
        )
    titles = [
        "two readings",
        "disagree",
        "a reading is wrong (where they disagree, agree)",
        "ratio",
        "the estimate is wrong (where they disagree, agree)",
    ]
    return markdown_table(titles, rows)


if __name__ == "__main__":
    run_script(main)
