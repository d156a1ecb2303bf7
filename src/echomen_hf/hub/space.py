"""A Hugging Face Space to try a published model in."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData
from packaging.requirements import Requirement

from .repository import write_card


__all__ = ["stage_space"]

PACKAGE = "echomen_hf"

APP = '''\
"""Try {repo_id} in the browser. Research software, not a medical device."""

from echomen_hf.app import build_app


build_app("{repo_id}"{notice}).launch()
'''
SYNTHETIC_NOTICE = "This model was trained on SYNTHETIC clips only."

CARD = """\
---
{{ card_data }}
---

# {{ title }}

Estimates the ejection fraction of an echocardiogram video with [{{ repo_id }}](https://huggingface.co/{{ repo_id }}).

**Not a medical device.** This is research software. Do not upload videos from which a patient could be recognised.
"""


def stage_space(folder: str | Path, repo_id: str, *, synthetic: bool = False) -> list[str]:
    """Write the files of a Space: the app, its requirements, its card, and this package's source.

    With the source, a Space runs the same code as its author, released or not.

    Args:
        folder: Empty folder.
        repo_id: Id of the model's repository.
        synthetic: Whether the model was trained on simulated clips; the page then says so.

    Returns:
        Warnings for the user.
    """
    folder, warnings = Path(folder), []
    title = repo_id.split("/")[-1]
    try:
        sdk_version: str | None = version("gradio")
    except PackageNotFoundError:
        sdk_version = None
        warnings.append(
            "gradio is not installed here, so the Space will run on the Hub's default version of it. Install it to "
            "name the version that you have tried."
        )
    notice = f', notice="{SYNTHETIC_NOTICE}"' if synthetic else ""
    (folder / "app.py").write_text(APP.format(repo_id=repo_id, notice=notice), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(space_requirements()) + "\n", encoding="utf-8")
    card_data = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=sdk_version,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        models=[repo_id],
        license="apache-2.0",
        tags=["echocardiography", "echomen", "ejection-fraction"],
        emoji="🫀",
        colorFrom="blue",
        colorTo="gray",
        short_description="Ejection fraction from echocardiogram video",
    )
    card = SpaceCard.from_template(card_data, template_str=CARD, title=title, repo_id=repo_id)
    write_card(card, folder)
    source = Path(__file__).parents[1]
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            target = folder / PACKAGE / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return warnings


def space_requirements() -> list[str]:
    """Lines of a requirements file for the app.

    gradio is left out, since the Space's `sdk_version` names it; PyTorch comes from the index of CPU builds, which fit
    the free hardware.
    """
    needed = map(Requirement, requires("echomen-hf") or [])
    kept = [
        requirement
        for requirement in needed
        if requirement.name != "gradio"
        and (requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", "app")))
    ]
    for requirement in kept:
        requirement.marker = None
    return ["--extra-index-url https://download.pytorch.org/whl/cpu", *sorted(map(str, kept), key=str.lower)]
