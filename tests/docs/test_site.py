"""The site builds without a warning, and loads nothing from other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.documents import ROOT, prose_of


for library in ("mkdocs", "material", "mkdocstrings", "l2m4m"):
    pytest.importorskip(library, reason="needs the extra `docs`")

NOTHING_LOADED = {"a"}


class Loaded(HTMLParser):
    """What a page loads, its equations, and its text outside of code."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.equations = 0
        self.text = ""
        self._inside: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag in ("code", "script", "style", "math"):
            self._inside.append(tag)
        self.equations += tag == "math"
        if tag not in NOTHING_LOADED:
            self.urls += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    child = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return folder


def parse(page: Path) -> Loaded:
    loaded = Loaded()
    loaded.feed(page.read_text(encoding="utf-8"))
    return loaded


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        elsewhere = [url for url in parse(page).urls if re.match(r"(https?:)?//", url)]
        assert not elsewhere, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_equations_are_laid_out_by_the_browser(site):
    method = parse(site / "method.html")
    source = prose_of("docs/method.md")
    displayed = source.count("$$") // 2
    inline = len(re.findall(r"\$[^$]+\$", re.sub(r"\$\$.*?\$\$", "", source, flags=re.DOTALL)))
    assert displayed >= 8
    assert method.equations == displayed + inline
    assert "$" not in method.text and "\\" not in method.text


def test_every_public_name_is_in_the_reference(site):
    import echomen_hf

    reference = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in echomen_hf.__all__:
        if name != "__version__":
            assert re.search(rf'<h\d id="echomen_hf\.[\w.]*\b{name}"', reference), name


def test_types_in_the_way_of_transformers_are_read(site):
    text = parse(site / "api" / "model.html").text
    assert "*optional*" not in text and "defaults to `" not in text
    assert "(default ) Number of residual blocks" in " ".join(text.split())
