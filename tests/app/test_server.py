"""The page over HTTP, as a program sees it that does not keep to the rules of a browser."""

import json
import shutil
import socket
import time

import pytest

from echomen_hf.app import build_app, clip_process, event_handlers


httpx = pytest.importorskip("httpx")


class Client:
    """A visitor without a browser."""

    def __init__(self, page, url, cache):
        self.page, self.url, self.cache = page, url, cache
        self.functions = {function.name: number for number, function in page.fns.items()}

    def post(self, path, **options):
        return httpx.post(f"{self.url}/gradio_api/{path}", timeout=60, **options)

    def call(self, path, name, session, data=()):
        number = self.functions[name]
        body = {"fn_index": number, "data": list(data), "session_hash": session, "trigger_id": None}
        return self.post(path, json=body)

    def upload(self, path):
        with path.open("rb") as file:
            return self.post("upload", files={"files": (path.name, file)}).json()[0]

    def take(self, path, session):
        data = {"path": self.upload(path), "meta": {"_type": "gradio.FileData"}, "orig_name": path.name}
        return self.call("run/take", "take", session, [data])

    def results(self, session, number):
        """Last outputs of this many events of a session."""
        found = []
        with httpx.stream("GET", f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=120) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    found.append(message)
                if len(found) == number:
                    return found

    def files(self):
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture
def serve(checkpoint, tmp_path, monkeypatch):
    """Function that serves a page and returns a client of it."""
    pages = []

    def start(**options):
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
        page = build_app(checkpoint, device="cpu", **options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        page.launch(prevent_thread_lock=True, quiet=True, server_port=port)
        pages.append(page)
        return Client(page, f"http://127.0.0.1:{port}", tmp_path / "cache")

    yield start
    for page in pages:
        page.close()


@pytest.mark.slow
def test_two_quick_uploads_of_a_visitor_are_both_read_and_leave_nothing(serve, echonet_dir, tmp_path):
    client = serve(saliency_steps=0)
    clips = sorted((echonet_dir / "Videos").glob("*.avi"))[:2]
    for number, clip in enumerate(clips):
        shutil.copy(clip, tmp_path / f"{number}.avi")
        assert client.take(tmp_path / f"{number}.avi", "visitor").status_code == 200
    for _ in clips:
        assert client.call("queue/join", "read_upload", "visitor").status_code == 200
    assert all(message["success"] for message in client.results("visitor", 2))
    end = time.monotonic() + 30
    while any(path.suffix != ".mp4" for path in client.files()):
        assert time.monotonic() < end, client.files()
        time.sleep(0.2)
    assert len(client.files()) <= 4  # videos of the clip on the page, and of the one before it for a moment


def test_one_address_cannot_fill_the_queue(serve):
    client = serve(saliency_steps=0, concurrency=1, max_queue=16)
    answers = [client.call("queue/join", "read_sample", f"forged{n}", [n, "as in a clinic"]) for n in range(12)]
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) < 9
    assert codes[:4] == [200] * 4
    refused = answers[codes.index(503)].text
    assert "Too many clips from your address" in refused


@pytest.mark.slow
def test_a_visitor_waits_for_the_clip_of_another_no_longer_than_its_deadline(serve, tmp_path, monkeypatch):
    # A clip whose decoder comes to no end.
    endless = "import io, sys, time; sys.stdin = io.StringIO(sys.stdin.read())"
    endless += "; '.gif' in sys.stdin.getvalue() and time.sleep(600)"
    monkeypatch.setattr(clip_process, "_START", f"{endless}\n{clip_process._START}")
    monkeypatch.setattr(event_handlers, "_SECONDS_PER_CLIP", 8.0)
    client = serve(saliency_steps=0, concurrency=1)
    (tmp_path / "endless.gif").write_bytes(b"endless")
    client.take(tmp_path / "endless.gif", "hostile")
    begun = time.monotonic()
    assert client.call("queue/join", "read_upload", "hostile").status_code == 200
    assert client.call("queue/join", "read_sample", "patient", [1, "as in a clinic"]).status_code == 200
    (answer,) = client.results("patient", 1)
    waited = time.monotonic() - begun
    assert "EF points" in answer["output"]["data"][0]
    assert 8 <= waited < 8 + 20
    (refused,) = client.results("hostile", 1)
    assert "takes too long to read" in refused["output"]["data"][0]


def test_reading_cannot_go_around_the_queue(serve):
    client = serve(saliency_steps=0)
    assert client.call("run/read_sample", "read_sample", "forged", [1, "as in a clinic"]).status_code == 404


def test_the_state_of_a_page_is_not_stored(serve):
    client = serve(saliency_steps=0)
    client.call("run/take", "take", "visitor", [None])
    for path in ("gradio_api/deep_link", "gradio_api/deep_link/"):
        answer = httpx.get(f"{client.url}/{path}?session_hash=visitor", timeout=60)
        assert answer.status_code == 404
    assert not list(client.cache.rglob("state.json"))


def test_an_upload_that_nobody_takes_is_removed(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("echomen_hf.app.session_files.SessionFiles.watch.__defaults__", (0.1, 0.5))
    client = serve(saliency_steps=0)
    (tmp_path / "SMITH.avi").write_bytes(b"never read")
    client.upload(tmp_path / "SMITH.avi")
    end = time.monotonic() + 20
    while client.files():
        assert time.monotonic() < end, client.files()
        time.sleep(0.1)
