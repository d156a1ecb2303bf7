"""The page in headless Chromium: what a visitor sees, and what is left on the server afterwards."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MILLISECONDS = 60_000
PHONE = {"width": 390, "height": 844}

httpx = pytest.importorskip("httpx")
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium found: install it, for example with apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Server:
    """`echomen app` in a process of its own."""

    def __init__(self, checkpoint, folder, port):
        self.url = f"http://127.0.0.1:{port}"
        self.cache = folder / "cache"
        self.log = folder / "log.txt"
        command = [sys.executable, "-m", "echomen_hf.cli", "app", "--model", checkpoint]
        command += ["--port", str(port), "--max_megabytes", "1"]
        environment = {**os.environ, "GRADIO_TEMP_DIR": str(self.cache), "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait(self):
        for _ in range(240):
            assert self.process.poll() is None, self.log.read_text()
            try:
                return urllib.request.urlopen(self.url, timeout=5).close()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
        pytest.fail("the server did not start:\n" + self.log.read_text())

    def files(self):
        """Visitors' files; gradio makes an empty folder of its own."""
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(checkpoint, tmp_path_factory.mktemp("server"), port)
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.fixture
def visit(chromium, server):
    """Function that opens the page as a new visitor; requests to anyone but the server are refused and noted."""
    contexts = []

    def open_page(**options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.foreign = []

        def route(request):
            page.foreign.append(request.request.url)
            request.abort()

        page.route(lambda url: not url.startswith((server.url, "data:", "blob:")), route)
        page.goto(server.url)
        page.wait_for_selector("#sample")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def clip(echonet_dir):
    return sorted((echonet_dir / "Videos").glob("*.avi"))[0]


def upload(page, path):
    page.locator("#upload input[type=file]").set_input_files(path)


def await_videos(page):
    """Wait until both videos play, and return their sizes."""
    for name in ("clip", "looked"):
        page.wait_for_selector(f"#{name} video")
        page.wait_for_function(f"document.querySelector('#{name} video').currentTime > 0.05")
    return page.evaluate(
        "[...document.querySelectorAll('video')].map((video) => [video.videoWidth, video.videoHeight])"
    )


def test_upload_shows_the_reading_and_plays_the_clip(visit, server, clip, tmp_path):
    path = tmp_path / "SMITH_JOHN.avi"
    shutil.copy(clip, path)
    page = visit(viewport={"width": 1280, "height": 900})
    upload(page, path)
    assert await_videos(page) == [[448, 448], [448, 448]]
    summary = page.locator("#summary").inner_text()
    assert 0 < float(page.locator(".gauge .value").inner_text()) < 100
    assert "EF points" in summary
    assert "SYNTHETIC" not in summary  # whatever is uploaded, only our own samples are known to be
    assert page.locator(".evidence svg").count() == 3
    page.locator(".numbers summary").click()
    assert page.locator(".numbers table").first.is_visible()
    assert "not a medical device" in page.locator(".disclaimer").inner_text()
    assert page.foreign == []
    assert "SMITH" not in server.log.read_text()


@pytest.mark.slow
def test_a_bad_file_is_explained_and_the_next_one_is_read(visit, server, clip, tmp_path):
    page = visit()
    bad = tmp_path / "bad.avi"
    bad.write_text("this is no video\n" * 50)
    upload(page, bad)
    page.wait_for_selector(".problem")
    assert "not a video that FFmpeg can open" in page.locator("#summary").inner_text()
    assert not page.locator("#clip").is_visible()
    upload(page, clip)
    await_videos(page)
    assert page.locator(".problem").count() == 0
    assert server.process.poll() is None


@pytest.mark.slow
def test_visitors_with_the_same_file_at_the_same_time(visit, clip):
    pages = [visit() for _ in range(3)]
    for page in pages:
        upload(page, clip)
    for page in pages:
        page.wait_for_selector(".summary, .problem")
        assert page.locator(".problem").all_inner_texts() == []
    assert len({page.locator(".gauge .value").inner_text() for page in pages}) == 1


def test_an_empty_file(visit, tmp_path):
    page = visit()
    empty = tmp_path / "empty.mp4"
    empty.touch()
    upload(page, empty)
    page.wait_for_selector(".problem")
    assert "is an empty file" in page.locator("#summary").inner_text()


def test_a_file_beyond_the_limit(visit, server, tmp_path):
    page = visit()
    large = tmp_path / "large.avi"
    large.write_bytes(bytes(1_200_000))
    upload(page, large)
    page.wait_for_selector(".toast-body")
    assert "maximum" in page.locator(".toast-body").inner_text()
    # Who goes around the page is refused while the file arrives.
    with large.open("rb") as file:
        response = httpx.post(f"{server.url}/gradio_api/upload", files={"files": file})
    assert response.status_code == 413
    assert not [file for file in server.files() if file.stat().st_size == 1_200_000]


@pytest.mark.slow
def test_synthetic_sample_on_a_phone(visit):
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    page.locator("#seed input").fill("3")
    page.click("#sample")
    await_videos(page)
    summary = page.locator("#summary").inner_text()
    assert "SYNTHETIC" in summary
    assert "True EF 34.1 %" in summary
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    widths = page.evaluate(
        "[...document.querySelectorAll('.card, video, svg.chart')].map((e) => e.getBoundingClientRect().right)"
    )
    assert max(widths) <= PHONE["width"]


@pytest.mark.slow
def test_nothing_is_left_when_visitors_have_gone(visit, server, clip):
    page = visit()
    upload(page, clip)
    await_videos(page)
    assert server.files() != []
    page.context.close()
    for _ in range(60):
        if not server.files():
            return
        time.sleep(0.5)
    pytest.fail(f"left on the server: {server.files()}")
