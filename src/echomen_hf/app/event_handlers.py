"""Reactions of the page to uploads and clicks; an error with one clip does not reach the server."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ..model.video_source_echomen import VideoReadError
from .browser_video import overlay_saliency, resize_for_display, write_browser_video
from .intake import CLIP_NAME, ReceivedClip, receive_clip
from .limits import UploadLimits
from .reader import ClipReader, simulate_clip
from .report import render_evidence, render_problem, render_summary
from .session_files import SessionFiles


__all__ = ["ANY_CATEGORY", "CLIP_LABEL", "SALIENCY_LABEL", "EventHandlers"]

ANY_CATEGORY = "as in a clinic"
"""Choice of simulated hearts that leaves the category to chance; a dropdown needs a value that is not empty."""

CLIP_LABEL = "Clip"
"""Above the clip."""

SALIENCY_LABEL = "Where the model looked"
"""Above the clip with the saliency."""

logger = logging.getLogger(__name__)


@dataclass
class _Turn:
    """A clip being read or shown for a visitor."""

    videos: list[Path] = field(default_factory=list)

    def remove_videos(self) -> None:
        for path in self.videos:
            path.unlink(missing_ok=True)


class EventHandlers:
    """Functions of the page; all but `take` and `leave` fill summary, pictures, clip, saliency and evidence."""

    def __init__(self, reader: ClipReader, limits: UploadLimits, files: SessionFiles) -> None:
        self.reader = reader
        self.limits = limits
        self.files = files
        self._latest: dict[str, _Turn] = {}

    def take(self, upload: str | None, request: gr.Request) -> tuple[str | None, None]:
        """Move an upload to the visitor's own folder, and empty the field for the next one."""
        if upload is None:
            return None, None
        try:
            return str(self.files.claim(_session(request), upload)), None
        except FileNotFoundError:
            return None, None

    def read_upload(self, path: str | None, request: gr.Request) -> Iterator[list[Any]]:
        """Read an upload, which is deleted once it is decoded."""

        def receive() -> ReceivedClip:
            if path is None:
                raise VideoReadError.about(CLIP_NAME, "did not arrive", "upload it again")
            try:
                return receive_clip(path, self.limits, self.reader.processor.clip_spec)
            finally:
                Path(path).unlink(missing_ok=True)

        yield from self._take_turn(_session(request), receive)

    def read_sample(self, seed: float | None, category: str, request: gr.Request) -> Iterator[list[Any]]:
        """Simulate a clip and read it."""
        simulate = partial(simulate_clip, int(seed or 0), None if category == ANY_CATEGORY else category)
        yield from self._take_turn(_session(request), simulate)

    def leave(self, request: gr.Request) -> None:
        """Remove the files of a visitor who is gone."""
        self._latest.pop(_session(request), None)
        self.files.forget(_session(request))

    def _take_turn(self, session: str, receive: Callable[[], ReceivedClip]) -> Iterator[list[Any]]:
        """Show a clip unless the same visitor asks for another one meanwhile: no page may mix two clips."""
        turn, last = _Turn(), self._latest.get(session)
        self._latest[session] = turn
        try:
            clip = receive()
            if last is not None:
                last.remove_videos()
            for outputs in self._show(clip, session, turn):
                if self._latest.get(session) is not turn:
                    turn.remove_videos()
                    return
                yield outputs
        except Exception as error:
            if self._latest.get(session) is turn:
                yield _problem(error)

    def _show(self, clip: ReceivedClip, session: str, turn: _Turn) -> Iterator[list[Any]]:
        clip_path, saliency_path = turn.videos = [self.files.new_file(session, ".mp4") for _ in range(2)]
        reading = self.reader.read(clip.video)
        frames = list(resize_for_display(clip.video.frames))
        write_browser_video(clip_path, frames, clip.video.fps)
        mark = " (SYNTHETIC)" if clip.synthetic else ""
        # The estimate need not wait for the saliency, which takes longer.
        yield [
            render_summary(clip, reading),
            gr.Column(visible=True),
            gr.Video(str(clip_path), label=CLIP_LABEL + mark),
            gr.Video(None, label=f"{SALIENCY_LABEL}: being computed"),
            render_evidence(reading),
        ]
        if self.reader.saliency_steps == 0:
            return
        painted = overlay_saliency(frames, self.reader.look(clip.video))
        write_browser_video(saliency_path, painted, clip.video.fps)
        looked = gr.Video(str(saliency_path), label=SALIENCY_LABEL + mark)
        yield [gr.skip(), gr.skip(), gr.skip(), looked, gr.skip()]


def _problem(error: Exception) -> list[Any]:
    if isinstance(error, VideoReadError):
        problem, remedy = error.problem, error.remedy
    else:
        # The message of an unforeseen error may quote the file; its kind and place cannot.
        place = traceback.extract_tb(error.__traceback__)[-1]
        file_name = Path(place.filename).name
        logger.error("Reading a clip failed: %s in %s:%s", type(error).__name__, file_name, place.lineno)
        problem, remedy = "ran into a fault of this program", "try another export of it, as AVI or MP4"
    return [render_problem(problem, remedy), gr.Column(visible=False), None, None, ""]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
