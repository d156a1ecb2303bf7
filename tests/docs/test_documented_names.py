"""What the pages name exists: links, headings, Python names, flags, settings and error messages."""

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

from helpers.documents import PAGES, ROOT, prose_of, read_page


LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
AUTOLINK = re.compile(r"<(https?://[^>\s]+)>")
REFERENCE = re.compile(r"\[`[^`]+`\]\[([\w.]+)\]")
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    toc = pytest.importorskip("markdown.extensions.toc")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {toc.slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose, folder = prose_of(page), (ROOT / page).parent
    for target in [*LINK.findall(prose), *AUTOLINK.findall(prose)]:
        url = urlparse(target)
        if url.scheme:
            # What other hosts answer is not tested: tests run offline.
            assert url.scheme in ("http", "https") and re.fullmatch(r"[\w.-]+(:\d+)?", url.netloc), target
            continue
        file = folder / url.path if url.path else ROOT / page
        assert file.exists(), f"{page} links to {target}, which does not exist"
        if url.fragment:
            assert url.fragment in anchors_of(file), f"{page} links to {target}, which has no such heading"


def find_name(name: str) -> object:
    """A module, or what the module that is written before the last point defines under the last name."""
    if importlib.util.find_spec(name.split(".")[0]) is None:
        return None
    parent, _, last = name.rpartition(".")
    try:
        # `pydoc.locate` would take a function for the module of the same name in which it stands.
        return getattr(importlib.import_module(parent), last, None) or importlib.import_module(name)
    except ImportError:
        return None


@pytest.mark.parametrize("page", PAGES)
def test_python_names_exist(page):
    for name in [*REFERENCE.findall(read_page(page)), *DIRECTIVE.findall(read_page(page))]:
        assert find_name(name) is not None, f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_a_module_are_there(page):
    for names, module in re.findall(r"((?:`\w+`,? (?:and )?)+)of `(echomen_hf[\w.]*)`", read_page(page)):
        for name in re.findall(r"`(\w+)`", names):
            assert find_name(f"{module}.{name}") is not None, f"{page} names {name} of {module}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_exist(page, settings):
    folders = (ROOT / "scripts", ROOT / "src" / "echomen_hf" / "cli", ROOT / "benchmarks")
    commands = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    known = {f"--{name}" for name in settings} | set(re.findall(r'["/](--[a-z0-9_-]+)', commands))
    # Of other programs: accelerate, torch, pip.
    known |= {
        "--config_file",
        "--num_processes",
        "--multi_gpu",
        "--mixed_precision",
        "--machine_rank",
        "--main_process_ip",
        "--cpu",
        "--nproc_per_node",
        "--logdir",
        "--help",
        "--strict",
    }
    for flag in re.findall(r"(?<![\w-])--[a-z0-9_]+", read_page(page)):
        assert flag in known, f"{page} names {flag}"


@pytest.mark.parametrize("page", ["docs/method.md", "docs/speed.md"])
def test_settings_of_tables_exist(page, settings):
    rows = re.findall(r"^\|.*\|$", prose_of(page), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", row)]
    unknown = set(named) - settings
    assert not unknown
    assert page != "docs/method.md" or len(named) > 8


def test_limits_of_the_web_app_are_the_default_ones():
    limits = pytest.importorskip("echomen_hf.app", reason="needs the extra `app`", exc_type=ImportError).UploadLimits()
    rows = re.findall(r"^\| `--(max_\w+)` \| (\d+) \|", read_page("docs/web_app.md"), re.MULTILINE)
    stated = {name: int(value) for name, value in rows if hasattr(limits, name)}
    assert stated == vars(limits)


@pytest.fixture(scope="module")
def texts_of_source() -> list[str]:
    """Every text in the source and the scripts; a NUL stands for what is filled in."""
    texts = []
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                texts.append("".join(parts).replace("`", ""))
    return [text.replace("`", "") for text in texts]


PLACEHOLDER = re.compile(
    r"\b(BYTES|COLUMNS|COUNT|DIR|ENDPOINT|FIELD|FILE|FPS|LIMIT|LINE|MODEL|NAMES?|OTHERS|REPO|SHAPE|SPLITS?|STAGE|STATUS"
    r"|SYNTAX|TOTAL|TYPE|VALUES)\b"
)


def as_in_source(message: str) -> str:
    """A message of the page with a NUL in the place of what is filled in."""
    return PLACEHOLDER.sub("\0", message)


def test_error_messages_are_those_of_the_source(texts_of_source):
    page = read_page("docs/troubleshooting.md")
    terms = re.findall(r"^(\S.*)\n:   ", page, re.MULTILINE)
    messages = [message for term in terms for message in re.findall(r"`([^`]+)`", term) if " " in message]
    assert len(messages) > 60
    unknown = [text for text in messages if not any(as_in_source(text) in source for source in texts_of_source)]
    assert not unknown


def test_only_messages_of_the_source_are_found(texts_of_source):
    assert not any(as_in_source("only COUNT moons") in text for text in texts_of_source)
    assert any(as_in_source("only COUNT frames") in text for text in texts_of_source)
