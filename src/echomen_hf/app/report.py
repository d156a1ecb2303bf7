"""The text and drawings of a reading as HTML; every value is escaped."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..labels import CATEGORY_TITLES, HEART_FAILURE_CATEGORIES
from ..model.clip_sampling_echomen import ClipSpec
from .charts import draw_experts, draw_gauge, draw_windows
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
    """Render what stands above everything else.

    Args:
        model_name: What the model is called.
        notice: What visitors must know about this model, such as what it was trained on.

    Returns:
        HTML.
    """
    return _render("heading.html", model_name=model_name, notice=notice)


def render_requirements(limits: UploadLimits, spec: ClipSpec) -> str:
    """Render which clips can be read.

    Args:
        limits: What is accepted.
        spec: Length of the model's clips.

    Returns:
        HTML.
    """
    seconds = spec.span(spec.reference_fps) / spec.reference_fps
    return _render("requirements.html", limits=limits, seconds=seconds)


def render_problem(problem: str, remedy: str) -> str:
    """Render why a clip could not be read.

    Args:
        problem: What is wrong, a clause about the clip.
        remedy: What to do, a clause.

    Returns:
        HTML.
    """
    return _render("problem.html", problem=problem, remedy=remedy)


def render_summary(clip: ReceivedClip, reading: Reading) -> str:
    """Render the estimate: dial, spread, category and cautions.

    Args:
        clip: The clip.
        reading: What the model says about it.

    Returns:
        HTML.
    """
    return _render("summary.html", clip=clip, reading=reading, gauge=Markup(draw_gauge(reading)))


def render_saliency_note() -> str:
    """Render what the saliency means and what it does not.

    Returns:
        HTML.
    """
    return _render("saliency.html")


def render_evidence(reading: Reading) -> str:
    """Render what the estimate rests on: experts, windows and the numbers.

    Args:
        reading: What the model says.

    Returns:
        HTML.
    """
    experts, windows = Markup(draw_experts(reading)), Markup(draw_windows(reading))
    return _render("evidence.html", reading=reading, experts=experts, windows=windows)
