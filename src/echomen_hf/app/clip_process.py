"""Reading and drawing of a clip in a process of its own, with limits of time and memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..model.clip_sampling_echomen import ClipSpec
from ..model.echo_video_echomen import EchoVideo
from ..model.sector_echomen import Sector
from ..model.video_source_echomen import VideoReadError
from ..outline.browser_video import resize_for_display, write_browser_video
from ..outline.overlay import draw_outlines
from .intake import CLIP_NAME, ReceivedClip, receive_clip
from .limits import UploadLimits
from .saliency_overlay import overlay_saliency


__all__ = ["FAULT", "draw_clip", "read_clip"]

FAULT = ("ran into a fault of this program", "try another export of it, as AVI or MP4")
"""Problem and remedy of an unforeseen error."""

# Without the `__init__` of these packages, which load PyTorch, a process starts in a tenth of the time.
_START = """
import sys, types
for name in ("echomen_hf", "echomen_hf.app", "echomen_hf.outline"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + name.removeprefix("echomen_hf").replace(".", "/")]
from echomen_hf.app.clip_process import main
main()
"""
_PACKAGE = Path(__file__).parents[1]
_CUT = "cut the clip to a few heart beats, or export it at a smaller size"

logger = logging.getLogger(__name__)


def read_clip(
    path: Path,
    limits: UploadLimits,
    spec: ClipSpec,
    *,
    frames: Path,
    video: Path,
    seconds: float,
    find_sector: bool = True,
) -> ReceivedClip:
    """Read an upload as `receive_clip` does, and write its frames (`.npy`) and the video that browsers play."""
    task = {"path": str(path), "limits": asdict(limits), "spec": asdict(spec), "find_sector": find_sector}
    answer = _run("read", task | {"frames": str(frames), "video": str(video)}, limits, seconds)
    pixels = np.asarray(np.load(frames, mmap_mode="c", allow_pickle=False))
    sector = answer["sector"] and Sector(**{name: _as_tuple(value) for name, value in answer["sector"].items()})
    video_read = EchoVideo(pixels, answer["fps"], CLIP_NAME, answer["coloured_share"], sector)
    return ReceivedClip(video_read, tuple(answer["cautions"]))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def draw_clip(
    frames: Path,
    fps: float,
    limits: UploadLimits,
    *,
    video: Path,
    seconds: float,
    saliency: Path | None = None,
    masks: Path | None = None,
    marks: Mapping[int, str] | None = None,
) -> None:
    """Write the video that browsers play of frames, with their saliency or the border of masks (each `.npy`).

    `marks` name frames, see `marked_frames`.
    """
    paths = {"frames": frames, "video": video, "saliency": saliency, "masks": masks}
    task = {name: path and str(path) for name, path in paths.items()}
    _run("draw", task | {"fps": fps, "marks": list((marks or {}).items())}, limits, seconds)


def _run(task: str, arguments: dict[str, Any], limits: UploadLimits, seconds: float) -> dict[str, Any]:
    """Run a task in a new process; whatever happens there is a `VideoReadError` here."""
    request = json.dumps({"task": task, "max_bytes": limits.max_process_bytes, "arguments": arguments})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, str(_PACKAGE)],
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries may quote the file
            timeout=max(seconds, 0.1),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise VideoReadError.about(CLIP_NAME, "takes too long to read", _CUT) from None
    if done.returncode != 0:
        logger.error("The process that reads a clip ended with code %s", done.returncode)
        problem = "cannot be decoded: its data are damaged, or need too much memory"
        raise VideoReadError.about(CLIP_NAME, problem, "export it again from its origin, as AVI or MP4 if possible")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "fault" in answer:
        logger.error("Reading a clip failed: %s", answer["fault"])
    if "problem" in answer:
        raise VideoReadError.about(CLIP_NAME, answer["problem"], answer["remedy"])
    return answer


def main() -> None:
    """Do what standard input asks for, and write the answer to standard output."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _limit_memory(request["max_bytes"])
    try:
        answer = (_read if request["task"] == "read" else _draw)(**request["arguments"])
    except VideoReadError as error:
        answer = {"problem": error.problem, "remedy": error.remedy}
    except (MemoryError, BlockingIOError):  # the second from FFmpeg, if memory for the stack of a thread is missing
        needed = f"needs more than {request['max_bytes'] / 1e6:,.0f} MB of memory"
        answer = {"problem": needed, "remedy": _CUT}
    except Exception as error:
        answer = {"fault": place_of(error), "problem": FAULT[0], "remedy": FAULT[1]}
    json.dump(answer, answers)
    answers.close()


def place_of(error: Exception) -> str:
    """Kind and place of an error, without its message, which may quote the file."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"


def _limit_memory(num_bytes: int) -> None:
    """Limit what this process may allocate from now on; only Linux keeps to it."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + num_bytes, used + num_bytes))


def _read(
    path: str, limits: dict[str, Any], spec: dict[str, Any], find_sector: bool, frames: str, video: str
) -> dict[str, Any]:
    clip = receive_clip(path, UploadLimits(**limits), ClipSpec(**spec), find_sector)
    np.save(frames, clip.video.frames)
    write_browser_video(video, resize_for_display(clip.video.frames), clip.video.fps)
    return {
        "fps": clip.video.fps,
        "cautions": clip.cautions,
        "coloured_share": clip.video.coloured_share,
        "sector": clip.video.sector and asdict(clip.video.sector),
    }


def _draw(
    frames: str, fps: float, video: str, saliency: str | None, masks: str | None, marks: list[tuple[int, str]]
) -> dict[str, Any]:
    pixels = np.load(frames, mmap_mode="r", allow_pickle=False)
    if masks is not None:
        painted = draw_outlines(pixels, np.load(masks, mmap_mode="r", allow_pickle=False), dict(marks))
    else:
        painted = resize_for_display(pixels)
    if saliency is not None:
        painted = overlay_saliency(painted, np.load(saliency, allow_pickle=False))
    write_browser_video(video, painted, fps)
    return {}
