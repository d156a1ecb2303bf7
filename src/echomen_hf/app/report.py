"""Text and charts of a reading as HTML; every value is escaped."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..labels import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from ..model.clip_sampling_echomen import ClipSpec
from .charts import VOLUME_PANEL, draw_experts, draw_gauge, draw_volume_curve, draw_windows
from .intake import ReceivedClip
from .limits import UploadLimits
from .reader import Reading


__all__ = [
    "render_evidence",
    "render_heading",
    "render_problem",
    "render_requirements",
    "render_saliency_note",
    "render_summary",
]

CATEGORY_MEANINGS = {"hfref": "reduced", "hfmref": "mildly reduced", "hfpef": "preserved"}
"""What clinicians call the ejection fraction of each category."""


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("echomen_hf.app"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {
        "titles": CATEGORY_TITLES,
        "meanings": CATEGORY_MEANINGS,
        "categories": HEART_FAILURE_CATEGORIES,
    }
    return environment


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(**values)


def render_heading(model_name: str, notice: str | None) -> str:
    """Title and disclaimer; `notice` is what visitors must know about this model."""
    return _render("heading.html", model_name=model_name, notice=notice)


def render_requirements(limits: UploadLimits, spec: ClipSpec) -> str:
    """Clips that can be read."""
    seconds = spec.span(spec.reference_fps) / spec.reference_fps
    return _render("requirements.html", limits=limits, seconds=seconds)


def render_problem(problem: str, remedy: str) -> str:
    """Why a clip could not be read and what to do, each a clause."""
    return _render("problem.html", problem=problem, remedy=remedy)


def render_summary(clip: ReceivedClip, reading: Reading) -> str:
    """Estimate: dial, spread, category and cautions."""
    gauge = None if reading.category is None else Markup(draw_gauge(reading))
    return _render("summary.html", clip=clip, reading=reading, gauge=gauge)


def render_saliency_note() -> str:
    """What the saliency means and what it does not."""
    return _render("saliency.html")


def render_evidence(reading: Reading) -> str:
    """Volumes, experts, windows and all numbers."""
    outline = reading.outline
    volumes = Markup(draw_volume_curve(outline)) if outline is not None and outline.masks.any() else None
    experts, windows = Markup(draw_experts(reading)), Markup(draw_windows(reading))
    return _render(
        "evidence.html", reading=reading, volumes=volumes, panel=VOLUME_PANEL, experts=experts, windows=windows
    )
