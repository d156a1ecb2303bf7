"""Checks of every video of a data set before a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tqdm.auto import tqdm

from ..model.echo_video_echomen import require_moving
from ..model.frame_collector_echomen import clearly_fewer
from ..model.video_reading_echomen import probe_video, read_video
from ..model.video_source_echomen import VideoReadError, named_errors
from ..runs.processes import available_cores


__all__ = ["VideoProblem", "VideoValidationError", "raise_for_problems", "validate_videos"]

_SIZE_RANGE = (16, 8192)  # pixels
_STILL_LEVELS, _STILL_SHARE = 20, 0.01  # grey levels and share of the picture that compression changes in a still one
_SHOWN_PROBLEMS = 20
Rows = Iterable[Mapping[str, Any]]
_COLUMNS = ("video", "file_name", "num_frames")


@dataclass(frozen=True)
class VideoProblem:
    """A reason why a video cannot be used.

    Args:
        file: The video, by its path where there is one.
        problem: What is wrong with it, a clause.
        remedy: What to do about it, a clause.
    """

    file: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}; {self.remedy}"


class VideoValidationError(ValueError):
    """Some videos of a data set cannot be used; the message lists them."""


def validate_videos(
    dataset: Rows | Mapping[str, Rows],
    level: Literal["headers", "frames"] = "headers",
    num_workers: int | None = None,
    progress: bool = True,
) -> list[VideoProblem]:
    """Look at every video of a data set.

    Args:
        dataset: Rows with `video` (a path, or `{"path": ..., "bytes": ...}`) and, where known, `file_name` and
            `num_frames`: a data set of `load_videos` in any layout, its dictionary of splits, or the rows of
            `read_data_set`.
        level: "headers" opens each file and checks that it has a video stream of believable size and frame rate, and
            at least two frames, as many as its header promises and its row states; "frames" also decodes everything
            and checks that the picture moves.
        num_workers: Number of threads; twice the number of processors by default, since much of the time is waiting
            for the disk.
        progress: Show a progress bar.

    Returns:
        The problems, at most one per video, in the order of the rows; empty if all is well.

    Raises:
        ValueError: If `level` is unknown.
    """
    if level not in ("headers", "frames"):
        raise ValueError(f"level must be 'headers' or 'frames', got {level!r}.")
    rows = list(_rows(dataset))
    with ThreadPoolExecutor(num_workers or 2 * available_cores()) as pool:
        checked = pool.map(partial(_find_problem, level=level), rows)
        bar = tqdm(checked, total=len(rows), desc=f"Checking video {level}", unit="video", disable=not progress)
        return [problem for problem in bar if problem is not None]


def raise_for_problems(problems: Sequence[VideoProblem]) -> None:
    """Raise one `VideoValidationError` that lists all problems, the first 20 in full."""
    if not problems:
        return
    shown = "\n".join(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS])
    rest = len(problems) - _SHOWN_PROBLEMS
    more = f"\n  ... and {rest} more" if rest > 0 else ""
    count = "1 video" if len(problems) == 1 else f"{len(problems)} videos"
    raise VideoValidationError(f"{count} cannot be used:\n{shown}{more}")


def _rows(dataset: Rows | Mapping[str, Rows]) -> Iterator[dict[str, Any]]:
    if isinstance(dataset, Mapping):
        for split in dataset.values():
            yield from _rows(split)
        return
    # A data set may carry a transform that decodes videos: look at the stored columns.
    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    for row in plain:
        yield {name: row[name] for name in _COLUMNS if name in row}


def _find_problem(row: dict[str, Any], level: str) -> VideoProblem | None:
    video = row["video"]
    path = video.get("path") if isinstance(video, Mapping) else video
    file = str(path or row.get("file_name") or "video")
    try:
        with named_errors(file):
            _check_header(video, file, row.get("num_frames"))
            if level == "frames":
                _check_frames(video, file)
    except VideoReadError as error:
        return VideoProblem(file, error.problem, error.remedy)
    return None


def _check_header(video: Any, file: str, stated_frames: int | None) -> None:
    header = require_moving(probe_video(video, default_fps=None), file)
    low, high = _SIZE_RANGE
    if not (low <= header.height <= high and low <= header.width <= high):
        raise VideoReadError.about(
            file,
            f"frames of {header.width}x{header.height} pixels are outside {low} to {high}",
            "export it again at its acquired size",
        )
    # One frame too few would make a clip at the end of the video unreadable; too many, another video under this name.
    if stated_frames and (header.num_frames < stated_frames or clearly_fewer(stated_frames, header.num_frames)):
        raise VideoReadError.about(
            file,
            f"has {header.num_frames} frames, but its table states {stated_frames}",
            "copy the video again, or correct the number in the table (NumberOfFrames in FileList.csv)",
        )


def _check_frames(video: Any, file: str) -> None:
    frames = require_moving(read_video(video, default_fps=None)).frames  # (T, H, W)
    moving = (frames.max(axis=0) - frames.min(axis=0)) > _STILL_LEVELS  # (H, W)
    if moving.mean() < _STILL_SHARE:
        raise VideoReadError.about(
            file, f"all {len(frames)} frames are the same", "replace it with a moving clip, or remove its row"
        )
