"""Layout of the page."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from ..checkpoints import SMALL_MODEL_NOTICE
from ..figure_style import CATEGORY_COLOURS
from ..labels import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from .event_handlers import ANY_CATEGORY, CLIP_LABEL, SALIENCY_LABEL, EventHandlers
from .limits import UploadLimits
from .reader import ClipReader
from .report import render_heading, render_requirements, render_saliency_note
from .saliency import DEFAULT_STEPS
from .session_files import SessionFiles


__all__ = ["EchoMENApp", "build_app"]

_CLEAN_EVERY, _KEEP_FOR = 60, 1800  # seconds, for videos of visits whose end is not noticed
# On a narrow screen the reading is below what was touched to get it.
_SCROLL = """
() => { if (innerWidth < 900) document.querySelector("#output").scrollIntoView({ behavior: "smooth" }); }
"""
# Both videos show the same moment: the second follows whatever is done to the first.
_SYNCHRONISE = """
() => setTimeout(() => {
  const [clip, looked] = ["clip", "looked"].map((id) => document.querySelector(`#${id} video`));
  if (!clip || !looked) return;
  const follow = () => { looked.currentTime = clip.currentTime; clip.paused ? looked.pause() : looked.play(); };
  for (const event of ["play", "pause", "seeked"]) clip.addEventListener(event, follow);
  looked.addEventListener("loadeddata", follow);
  follow();
}, 400)
"""
# A line over the volume curve shows the moment of the clip.
_FOLLOW = """
() => setTimeout(() => {
  const clip = document.querySelector("#clip video"), chart = document.querySelector(".followed");
  if (!clip || !chart) return;
  const cursor = chart.querySelector(".cursor"), { left, width } = chart.dataset;
  const move = () => {
    if (!cursor.isConnected || !clip.isConnected) return;
    if (clip.duration > 0) {
      cursor.style.display = "block";
      cursor.style.left = `${+left + (+width * clip.currentTime) / clip.duration}%`;
    }
    requestAnimationFrame(move);
  };
  move();
}, 400)
"""


class EchoMENApp(gr.Blocks):
    """The page with its own defaults for `queue` and `launch`."""

    def __init__(self, limits: UploadLimits, max_queue: int, **options: Any) -> None:
        # Before the constructor, which calls `queue`.
        self.upload_limits = limits
        self.max_queue = max_queue
        super().__init__(**options)

    def queue(self, *args: Any, **options: Any) -> Any:
        """Set up the queue."""
        page = super().queue(*args, **{"max_size": self.max_queue, "api_open": False, **options})
        join, queue = self._queue.push, self._queue

        async def join_if_few_wait(body: Any, request: Any, username: str | None) -> Any:
            jobs = [job for job in queue.active_jobs if job]
            jobs += [waiting.queue for waiting in queue.event_queue_per_concurrency_id.values()]
            own = [event for job in jobs for event in job if _address(event.request) == _address(request)]
            if len(own) >= self.max_joins:
                return False, "Too many clips from your address wait to be read. Try again later.", "queue_full"
            return await join(body=body, request=request, username=username)

        queue.push = join_if_few_wait  # type: ignore[method-assign]
        return page

    @property
    def max_joins(self) -> int:
        """Places in the queue that one address may take."""
        return max(2, self.max_queue // 4)

    def launch(self, *args: Any, **options: Any) -> Any:
        """Serve the page."""
        defaults = {
            "max_file_size": self.upload_limits.max_bytes,
            "theme": _theme(),
            "css": _style_sheet(),
            "footer_links": [],
            "ssr_mode": False,
        }
        settings = dict(options.pop("app_kwargs", None) or {})
        settings["middleware"] = [*settings.get("middleware", ()), Middleware(_WithoutDeepLinks)]
        return super().launch(*args, app_kwargs=settings, **{**defaults, **options})


class _WithoutDeepLinks:
    """Middleware that refuses to store the state of a page on request, as gradio does even without a button for it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_refused = scope["type"] == "http" and scope["path"].rstrip("/").endswith("/deep_link")
        await (PlainTextResponse("Not found", 404) if is_refused else self.app)(scope, receive, send)


def _address(request: Any) -> str:
    return request.client.host if request is not None and request.client is not None else ""


def build_app(
    model: str | Path | None = None,
    *,
    limits: UploadLimits | None = None,
    notice: str | None = None,
    device: str | None = None,
    saliency_steps: int = DEFAULT_STEPS,
    concurrency: int = 2,
    max_queue: int = 32,
) -> gr.Blocks:
    """Build the web page for a model; `.launch()` serves it.

    Args:
        model: Folder or Hub id of a trained model. Defaults to the small model of the package; the page then says that
            it was trained on simulated hearts only.
        limits: Limits of an upload.
        notice: Important information about this model, shown next to the disclaimer.
        device: Device of the model. Defaults to the first accelerator, or else the CPU.
        saliency_steps: Passes through the model per window for the saliency; 0 omits the saliency, for a large model
            on a CPU.
        concurrency: Number of clips that are read at a time.
        max_queue: Number of visitors who may wait.

    Returns:
        The page.

    Raises:
        ValueError: If a folder holds no model, or an option is out of range.
        FileNotFoundError: If there is no such folder.
        OSError: If the Hub cannot be reached.
    """
    limits = limits or UploadLimits()
    reader = ClipReader(model, device, saliency_steps)
    if reader.is_small_model:
        notice = " ".join(filter(None, (SMALL_MODEL_NOTICE, notice)))
    app = EchoMENApp(
        limits,
        max_queue,
        title="EchoMEN: ejection fraction from echo video",
        analytics_enabled=False,
        delete_cache=(_CLEAN_EVERY, _KEEP_FOR),
        fill_width=True,
    )
    with app:
        gr.HTML(render_heading(reader.name, notice))
        with gr.Row(elem_id="page"):
            with gr.Column(min_width=280, elem_id="input"):
                upload = _upload_field("Drop a clip: AVI, MP4, GIF or DICOM", "upload")
                with gr.Group():
                    category = gr.Dropdown(
                        [(ANY_CATEGORY, ANY_CATEGORY)]
                        + [(CATEGORY_TITLES[name], name) for name in HEART_FAILURE_CATEGORIES],
                        value=ANY_CATEGORY,
                        label="Or simulate a heart (SYNTHETIC)",
                        elem_id="category",
                    )
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                    sample = gr.Button("Simulate and read", variant="primary", elem_id="sample")
            with gr.Column(min_width=280, elem_id="output"):
                summary = gr.HTML('<p class="empty">The reading appears here.</p>', elem_id="summary")
                with gr.Column(visible=False) as pictures:
                    with gr.Row():
                        clip = _video(CLIP_LABEL, "clip")
                        looked = _video(SALIENCY_LABEL, "looked", visible=saliency_steps > 0)
                    gr.HTML(render_saliency_note(), visible=saliency_steps > 0)
                evidence = gr.HTML(elem_id="evidence")
            with gr.Column(min_width=280, elem_id="requirements"):
                gr.HTML(render_requirements(limits, reader.processor.clip_spec))

        files = SessionFiles(clip.GRADIO_CACHE)
        files.watch(app.upload_file_set)
        handlers = EventHandlers(reader, limits, files)
        # Taking an upload does not wait in the queue: gradio's copy of it is there for seconds only.
        taken = upload.upload(
            handlers.take,
            upload,
            upload,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="multiple",
        )
        reading: dict[str, Any] = {
            "outputs": [summary, pictures, clip, looked, evidence],
            "concurrency_limit": concurrency,
            "concurrency_id": "model",
            "api_visibility": "private",
            "trigger_mode": "multiple",  # the next clip need not wait for the saliency of this one
            "show_progress_on": summary,
        }
        read_upload = taken.success(handlers.read_upload, None, **reading)
        read_sample = sample.click(handlers.read_sample, [seed, category], **reading)
        evidence.change(None, js=_FOLLOW)
        for begins in (upload.upload, sample.click):
            begins(None, js=_SCROLL)
        for ends in (read_upload, read_sample):
            ends.then(None, js=_SYNCHRONISE)
        app.unload(handlers.leave)
    return app.queue()


def _upload_field(label: str, elem_id: str) -> gr.File:
    field = gr.File(label=label, height=150, elem_id=elem_id)

    def hand_on_path(payload: ListFiles | FileData | None) -> str | None:
        return payload.path if isinstance(payload, FileData) else None

    # Its own way of handing on the path leaves an empty temporary file behind for every upload.
    field.preprocess = hand_on_path  # type: ignore[method-assign]
    return field


def _video(label: str, elem_id: str, visible: bool = True) -> gr.Video:
    return gr.Video(
        label=label,
        elem_id=elem_id,
        visible=visible,
        interactive=False,
        autoplay=True,
        loop=True,
        buttons=[],
        min_width=280,
    )


def _style_sheet() -> str:
    colours = " ".join(f"--{category}: {colour};" for category, colour in CATEGORY_COLOURS.items())
    rules = resources.files("echomen_hf.app").joinpath("style.css").read_text(encoding="utf-8")
    return f".gradio-container {{ {colours} }}\n{rules}"


def _theme() -> gr.Theme:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # none is downloaded
    theme = gr.themes.Base(
        primary_hue="cyan", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    # The default for subdued text has a contrast of 2.6 to 1 on white; text needs 4.5 to 1.
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_800",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_800",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
    )
