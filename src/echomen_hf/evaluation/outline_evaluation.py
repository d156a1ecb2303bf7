"""Agreement of an outliner's masks with the exact ones of simulated hearts, or with tracings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..data.tracings import Tracing, polygon_mask
from ..model.echo_video_echomen import EchoVideo
from ..outline.outliner import LeftVentricleOutliner
from ..outline.simulated_samples import on_screen
from ..outline.traced_samples import read_traced_video
from ..outline.video_outline import outline_video
from ..simulation import SimulatedFrames
from ..simulation.echo import sample_echo_parameters, simulate_echo
from ..simulation.other_recordings import OTHER_RECORDINGS, simulate_other_recording
from .beat_agreement import BeatAgreement, TracedAgreement
from .report import markdown_table
from .simulation_examination import (
    CALIBRATION_SEED_OFFSET,
    HELD_OUT,
    IN_RANGE,
    PROFILE_TITLES,
    TEST_SEED_OFFSET,
    examination_videos,
    simulate_whole_fan,
)


__all__ = [
    "calibrate_outliner",
    "dice",
    "evaluate_outlines_on_simulation",
    "evaluate_outlines_on_tracings",
    "outline_section",
]

SCREENS = "screens"
_TITLES = {
    **{machine: PROFILE_TITLES[machine] for machine in (IN_RANGE, HELD_OUT)},
    SCREENS: "machines as in training, on a screen",
}
_MOMENTS = {"end_diastole": "end diastole", "end_systole": "end systole", "all_frames": "all frames"}
_FPS = 50.0  # of recordings of other kinds
_OTHER_FRAMES = 40


class OutlinedVideo(NamedTuple):
    """A video with known masks: `masks[i]` is that of frame `numbers[i]`."""

    frames: NDArray[np.uint8]
    fps: float
    numbers: NDArray[np.int64]
    masks: NDArray[np.bool_]
    end_diastole: int
    end_systole: int


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice coefficient of masks `(..., H, W)`, 2 |A and B| / (|A| + |B|), 1 where both are empty."""
    both, either = (first & second).sum((-2, -1)), first.sum((-2, -1)) + second.sum((-2, -1))
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


def calibrate_outliner(
    outliner: LeftVentricleOutliner,
    *,
    num_videos: int = 200,
    coverage: float = 0.9,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Set an outliner's `ef_error_quantile`, on simulated videos that neither training nor evaluation shows.

    A third of the videos each is of machines as in training, of a machine never seen, and of whole fans.

    Args:
        outliner: Outliner, whose configuration is changed.
        num_videos: Videos per kind of machine.
        coverage: Share of the videos whose error the quantile is not to exceed.
        seed: Seed of the simulation.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If no video has a beat.
    """
    sources = [SimulatedFrames(IN_RANGE), SimulatedFrames(HELD_OUT), SimulatedFrames(IN_RANGE, whole_fan_share=1.0)]
    rows = examination_videos(num_videos * len(sources), seed + CALIBRATION_SEED_OFFSET)
    errors = []
    for row, source in zip(tqdm(rows, "calibration", unit="video", disable=not progress), itertools.cycle(sources)):
        outline = outline_video(EchoVideo(source.read(row), row["fps"], row["file_name"]), outliner)
        errors.append(abs(outline.ejection_fraction - row["ejection_fraction"]))
    if np.isnan(errors).all():
        raise ValueError("The outliner found no beat in any simulated video; train it for longer.")
    outliner.config.ef_error_quantile = round(float(np.nanquantile(errors, coverage)), 2)


def evaluate_outlines_on_simulation(
    outliner: LeftVentricleOutliner,
    *,
    num_videos: int = 200,
    num_others: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure an outliner on simulated videos that no training has seen.

    The hearts are those of `examine_on_simulation`, a third of each heart-failure category: on machines as in
    training, on a machine never seen, and a quarter of them on the screen of an export. Further measured is how often
    frames of recordings of other kinds stay without an outline.

    Args:
        outliner: Outliner.
        num_videos: Videos per machine.
        num_others: Recordings of every other kind.
        seed: Seed of the simulation.
        progress: Whether to show progress bars.

    Returns:
        Dice coefficients, shares and errors of beats by kind of machine, shares by kind of other recording, and frames
        per second.
    """
    found: dict[str, Any] = {"settings": {"num_videos": num_videos, "num_others": num_others, "seed": seed}}
    rows = examination_videos(num_videos, seed + TEST_SEED_OFFSET)
    machines = {
        IN_RANGE: (_simulated(row, IN_RANGE) for row in rows),
        HELD_OUT: (_simulated(row, HELD_OUT) for row in rows),
        SCREENS: (_shown_on_screen(row) for row in itertools.islice(rows, max(num_videos // 4, 1))),
    }
    found["machines"] = {
        name: _agreement(outliner, tqdm(videos, name, unit="video", disable=not progress))
        for name, videos in machines.items()
    }
    found["other_recordings"] = {}
    for kind in tqdm(OTHER_RECORDINGS, "other recordings", disable=not progress):
        if kind != "still":  # shows an apical four-chamber view
            recordings = (
                simulate_other_recording(kind, seed + TEST_SEED_OFFSET + number, _OTHER_FRAMES, _FPS)
                for number in range(num_others)
            )
            empty = [~outliner.predict_masks(frames, _FPS).any((1, 2)) for frames in recordings]
            found["other_recordings"][kind] = float(np.mean(empty))
    return found


def evaluate_outlines_on_tracings(
    outliner: LeftVentricleOutliner, tracings: Sequence[Tracing], progress: bool = True
) -> dict[str, Any]:
    """Measure an outliner on the traced frames of a data set.

    Args:
        outliner: Outliner.
        tracings: Tracings of `read_tracings`.
        progress: Whether to show a progress bar.

    Returns:
        Dice coefficients at both ends of the beat and of all traced frames, the share of all frames that have an
        outline, errors of the ejection fraction at the traced frames and of the mean of the beats, and frames per
        second.
    """
    groups = [list(group) for _, group in itertools.groupby(tracings, lambda tracing: tracing.video)]
    videos = (_traced(group) for group in tqdm(groups, "videos", disable=not progress))
    return {"tracings": _agreement(outliner, videos)}


def _simulated(row: Mapping[str, Any], profile: str) -> OutlinedVideo:
    rng = np.random.default_rng(row["seed"])
    parameters = sample_echo_parameters(rng, row["ejection_fraction"], row["num_frames"], row["fps"], profile)
    echo = simulate_echo(rng, parameters=parameters)
    return _video(echo, echo.frames, echo.outlines)


def _shown_on_screen(row: Mapping[str, Any]) -> OutlinedVideo:
    rng = np.random.default_rng(row["seed"])
    echo, mask = simulate_whole_fan(row, rng)
    return _video(echo, *on_screen(rng, echo.frames, echo.outlines, mask, row["fps"]))


def _video(echo: Any, frames: NDArray[np.uint8], outlines: NDArray[np.float64]) -> OutlinedVideo:
    masks = np.stack([polygon_mask(outline, *frames.shape[1:]) for outline in outlines])
    ends = echo.end_diastolic_frame, echo.end_systolic_frame
    return OutlinedVideo(frames, echo.fps, np.arange(len(frames)), masks, *ends)


def _traced(tracings: Sequence[Tracing]) -> OutlinedVideo:
    video = read_traced_video(tracings)
    by_moment = {tracing.moment: tracing.frame for tracing in tracings}
    return OutlinedVideo(
        video.frames,
        video.fps,
        np.array([tracing.frame for tracing in tracings]),
        np.stack([tracing.mask(*video.frames.shape[1:]) for tracing in tracings]),
        by_moment["end_diastole"],
        by_moment["end_systole"],
    )


def _agreement(outliner: LeftVentricleOutliner, videos: Iterable[OutlinedVideo]) -> dict[str, Any]:
    """Dice coefficients of videos, each of which counts the same."""
    values: dict[str, list[float]] = {name: [] for name in _MOMENTS}
    outlined, num_frames, seconds, core_seconds = [], 0, 0.0, 0.0
    beats, traced = BeatAgreement(), TracedAgreement()
    for video in videos:
        start, core_start = time.perf_counter(), time.process_time()
        masks = outliner.predict_masks(video.frames, video.fps)
        seconds += time.perf_counter() - start
        core_seconds += time.process_time() - core_start
        num_frames += len(masks)
        outlined.append(masks.any((1, 2)).mean())
        agreement = dice(masks[video.numbers], video.masks)
        values["all_frames"].append(float(agreement.mean()))
        for moment in ("end_diastole", "end_systole"):
            values[moment].append(float(agreement[video.numbers == getattr(video, moment)][0]))
        if len(video.masks) == len(masks):
            beats.add(masks, video.masks, video.fps)
        else:
            ends = [video.end_diastole, video.end_systole]
            traced.add(masks, video.masks[[list(video.numbers).index(end) for end in ends]], ends, video.fps)
    return {
        "dice": {name: {"mean": float(np.mean(v)), "p5": float(np.quantile(v, 0.05))} for name, v in values.items()},
        "share_outlined": float(np.mean(outlined)),
        "num_videos": len(outlined),
        "frames_per_second": num_frames / seconds,
        "frames_per_core_second": num_frames / core_seconds,
        **({"beats": beats.summary()} if beats.num_videos else {}),
        **({"ejection_fraction": traced.summary()} if traced.same_frames else {}),
    }


def outline_section(evaluation: Mapping[str, Any]) -> str:
    """Format an evaluation as Markdown."""
    machines, others = evaluation.get("machines", {}), evaluation.get("other_recordings", {})
    rows = [[title, *_cells(machines[name])] for name, title in _TITLES.items() if name in machines]
    if "tracings" in evaluation:
        rows.append(["tracings", *_cells(evaluation["tracings"])])
    titles = [f"Dice, {title} (5th percentile)" for title in _MOMENTS.values()]
    table = markdown_table(["Videos", "Number", *titles, "frames with an outline"], rows)
    beats = [(title, machines[name]["beats"]) for name, title in _TITLES.items() if "beats" in machines.get(name, {})]
    if beats:
        table += f"\n\n{_beat_table(beats)}"
    if "ejection_fraction" in evaluation.get("tracings", {}):
        table += f"\n\n{_traced_table(evaluation['tracings']['ejection_fraction'])}"
    if not others:
        return table
    rows = [[kind.replace("_", " "), f"{others[kind]:.1%}"] for kind in OTHER_RECORDINGS if kind in others]
    return f"{table}\n\n{markdown_table(['Recording of another kind', 'frames without an outline'], rows)}"


def _beat_table(beats: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    titles = ["Beats", "Number", "found", "invented per beat", "end diastole within 60 ms", "end systole within 60 ms"]
    titles += ["EF of a beat, mean absolute error", "bias", "EF of a video, mean absolute error", "90 % below"]
    shares = ("share_found", "invented_per_beat", "end_diastole_within_60_ms", "end_systole_within_60_ms")
    errors = ("beat_ef_mae", "beat_ef_bias", "video_ef_mae", "video_ef_error_quantile")
    rows = [
        [
            title,
            str(found["num_beats"]),
            *(f"{found[name]:.1%}" for name in shares),
            *(f"{found[name]:.1f}" for name in errors),
        ]
        for title, found in beats
    ]
    return markdown_table(titles, rows)


def _traced_table(found: Mapping[str, Any]) -> str:
    titles = ["Ejection fraction against that of the tracings", "Number", "mean absolute error", "bias"]
    rows = [
        [title, str(found[name]["num_videos"]), f"{found[name]['mae']:.1f}", f"{found[name]['bias']:.1f}"]
        for name, title in (("same_frames", "at the traced frames"), ("beats", "mean of the beats of the video"))
    ]
    return markdown_table(titles, rows)


def _cells(found: Mapping[str, Any]) -> Iterator[str]:
    yield str(found["num_videos"])
    for name in _MOMENTS:
        yield f"{found['dice'][name]['mean']:.3f} ({found['dice'][name]['p5']:.3f})"
    yield f"{found['share_outlined']:.1%}"
