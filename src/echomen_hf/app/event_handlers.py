"""Reactions of the page to uploads and clicks; an error with one clip does not reach the server."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..model.video_source_echomen import VideoReadError
from ..outline.overlay import marked_frames
from .clip_process import FAULT, draw_clip, place_of, read_clip
from .intake import CLIP_NAME, ReceivedClip
from .limits import UploadLimits
from .reader import ClipReader, Reading, simulate_clip
from .report import render_evidence, render_problem, render_summary
from .session_files import SessionFiles


__all__ = ["ANY_CATEGORY", "CLIP_LABEL", "SALIENCY_LABEL", "EventHandlers"]

ANY_CATEGORY = "as in a clinic"
"""Choice of simulated hearts that leaves the category to chance; a dropdown needs a value that is not empty."""

CLIP_LABEL = "Clip"
SALIENCY_LABEL = "Where the model looked"

_SECONDS_PER_CLIP = 60.0
_MAX_WAITING_UPLOADS = 4  # of one visitor

logger = logging.getLogger(__name__)


class _Turn:
    """A clip being read or shown for a visitor, and its files."""

    def __init__(self, files: SessionFiles, session: str) -> None:
        self.deadline = time.monotonic() + _SECONDS_PER_CLIP
        self.clip, self.looked = (files.new_file(session, ".mp4") for _ in range(2))
        self.frames, self.saliency, self.masks = (files.new_file(session, ".npy") for _ in range(3))

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def remove_arrays(self) -> None:
        for path in (self.frames, self.saliency, self.masks):
            path.unlink(missing_ok=True)

    def remove_files(self) -> None:
        self.remove_arrays()
        for path in (self.clip, self.looked):
            path.unlink(missing_ok=True)


@dataclass
class _Visit:
    """A visitor's uploads that are not read yet, and the clip on the page."""

    uploads: deque[Path | None] = field(default_factory=deque)
    reading: threading.Lock = field(default_factory=threading.Lock)
    latest: _Turn | None = None


class EventHandlers:
    """Functions of the page; all but `take` and `leave` fill summary, pictures, clip, saliency and evidence."""

    def __init__(self, reader: ClipReader, limits: UploadLimits, files: SessionFiles) -> None:
        self.reader = reader
        self.limits = limits
        self.files = files
        self._visits: dict[str, _Visit] = {}

    def take(self, upload: str | None, request: gr.Request) -> None:
        """Move an upload to the visitor's own folder to be read in turn, and empty the field for the next one."""
        visit = self._visits.setdefault(_session(request), _Visit())
        if len(visit.uploads) >= _MAX_WAITING_UPLOADS:
            raise gr.Error("Wait until your other clips are read, then upload this one again.", print_exception=False)
        try:
            visit.uploads.append(self.files.claim(_session(request), upload) if upload is not None else None)
        except FileNotFoundError:
            visit.uploads.append(None)

    def read_upload(self, request: gr.Request) -> Iterator[list[Any]]:
        """Read the visitor's next upload, which is deleted once it is decoded."""
        visit = self._visits.setdefault(_session(request), _Visit())

        def receive(turn: _Turn) -> ReceivedClip:
            path = visit.uploads.popleft() if visit.uploads else None
            if path is None:
                raise VideoReadError.about(CLIP_NAME, "did not arrive", "upload it again")
            processor = self.reader.processor
            try:
                return read_clip(
                    path,
                    self.limits,
                    processor.clip_spec,
                    frames=turn.frames,
                    video=turn.clip,
                    seconds=turn.seconds_left,
                    find_sector=processor.do_find_sector,
                )
            finally:
                path.unlink(missing_ok=True)

        yield from self._take_turn(_session(request), visit, receive)

    def read_sample(self, seed: float | None, category: str, request: gr.Request) -> Iterator[list[Any]]:
        """Simulate a clip and read it."""
        visit = self._visits.setdefault(_session(request), _Visit())

        def receive(turn: _Turn) -> ReceivedClip:
            clip = simulate_clip(int(seed or 0), None if category == ANY_CATEGORY else category)
            np.save(turn.frames, clip.video.frames)
            draw_clip(turn.frames, clip.video.fps, self.limits, video=turn.clip, seconds=turn.seconds_left)
            return clip

        yield from self._take_turn(_session(request), visit, receive)

    def leave(self, request: gr.Request) -> None:
        """Remove the files of a visitor who is gone."""
        self._visits.pop(_session(request), None)
        self.files.forget(_session(request))

    def _take_turn(self, session: str, visit: _Visit, receive: Callable[[_Turn], ReceivedClip]) -> Iterator[list[Any]]:
        """Show a clip after the earlier ones of the same visitor, until the next: no page may mix two clips."""
        turn: _Turn | None = None

        def is_shown() -> bool:
            return visit.latest is turn and self._visits.get(session) is visit

        try:
            with visit.reading:
                turn = _Turn(self.files, session)
                last, visit.latest = visit.latest, turn
                try:
                    clip = receive(turn)
                finally:
                    if last is not None:
                        last.remove_files()
                reading = self.reader.read(clip.video)
                self._draw_outline(clip, reading, turn)
                outputs = self._show(clip, reading, turn)
            # The estimate need not wait for the saliency, which takes longer.
            if is_shown():
                yield outputs
            if is_shown() and self.reader.saliency_steps > 0 and reading.category is not None:
                looked = self._look(clip, turn)
                if is_shown():
                    yield [gr.skip(), gr.skip(), gr.skip(), looked, gr.skip()]
        except Exception as error:
            if is_shown():
                yield _problem(error)
                visit.latest = None
        finally:
            if turn is not None:
                turn.remove_arrays() if is_shown() else turn.remove_files()
            if session not in self._visits:
                self.files.forget(session)

    def _draw_outline(self, clip: ReceivedClip, reading: Reading, turn: _Turn) -> None:
        """Draw the border of the ventricle into the clip; if that takes too long, the clip stays as it is."""
        outline = reading.outline
        if outline is None or not outline.masks.any():
            return
        fps, outlined = clip.video.fps, turn.looked
        np.save(turn.masks, outline.masks)
        with contextlib.suppress(VideoReadError):
            marks = marked_frames(outline.beats, fps)
            seconds = turn.seconds_left
            draw_clip(turn.frames, fps, self.limits, video=outlined, seconds=seconds, masks=turn.masks, marks=marks)
            outlined.replace(turn.clip)

    def _show(self, clip: ReceivedClip, reading: Reading, turn: _Turn) -> list[Any]:
        return [
            render_summary(clip, reading),
            gr.Column(visible=True),
            gr.Video(str(turn.clip), label=CLIP_LABEL + _mark(clip)),
            gr.Video(None, label=SALIENCY_LABEL + (": being computed" if reading.category else ": no estimate")),
            render_evidence(reading) if reading.category is not None else "",
        ]

    def _look(self, clip: ReceivedClip, turn: _Turn) -> gr.Video:
        fps = clip.video.fps
        try:
            np.save(turn.saliency, self.reader.look(clip.video, turn.deadline))
            draw_clip(
                turn.frames, fps, self.limits, video=turn.looked, seconds=turn.seconds_left, saliency=turn.saliency
            )
        except (TimeoutError, VideoReadError):
            return gr.Video(None, label=f"{SALIENCY_LABEL}: left out, since it takes too long for this clip")
        return gr.Video(str(turn.looked), label=SALIENCY_LABEL + _mark(clip))


def _mark(clip: ReceivedClip) -> str:
    return " (SYNTHETIC)" if clip.synthetic else ""


def _problem(error: Exception) -> list[Any]:
    problem, remedy = FAULT
    if isinstance(error, VideoReadError):
        problem, remedy = error.problem, error.remedy
    else:
        logger.error("Reading a clip failed: %s", place_of(error))
    return [render_problem(problem, remedy), gr.Column(visible=False), None, None, ""]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
