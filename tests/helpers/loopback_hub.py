"""A Hub on the loopback interface: enough of its HTTP interface to create, fill, list and read repositories."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


TOKEN = "hf_loopback"
READ_ONLY_TOKEN = "hf_readonly"
LARGE = (".safetensors", ".png")


@dataclass
class Repository:
    """One repository: the files of its head, and its commits."""

    kind: str
    private: bool = False
    sdk: str | None = None
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: list[dict] = field(default_factory=lambda: [{"title": "initial commit"}])
    branches: set[str] = field(default_factory=lambda: {"main"})
    pull_requests: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(f"{id(self)} {len(self.commits)}".encode()).hexdigest()


@dataclass
class Fault:
    """What to do instead of answering: a status, `drop` the connection, or `lose_answer`, after doing the work."""

    method: str
    pattern: str
    action: int | str
    times: int = 1_000


class LoopbackHub:
    """State of the server, and what was asked of it."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.endpoint = ""

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", **options) -> Repository:
        repository = self.repositories[kind, name] = Repository(kind, **options)
        repository.files |= files
        return repository

    def fault_of(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.pattern, path):
                fault.times -= 1
                return fault
        return None

    @contextmanager
    def serve(self):
        handler = type("Handler", (LoopbackHandler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args):
        pass

    def handle_request(self):
        path = unquote(urlsplit(self.path).path)
        body = self.read_body()
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            fault = self.hub.fault_of(self.command, path)
            if fault is not None and fault.action == "drop":
                return self.drop()
            if fault is not None and fault.action != "lose_answer":
                return self.answer(fault.action, {"error": "made to fail"})
            for method, pattern, respond in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method in (self.command, "GET" if self.command == "HEAD" else None):
                    status, content, headers = respond(self, body, **match.groupdict())
                    if fault is not None:
                        return self.drop()
                    return self.answer(status, content, headers)
        return self.answer(404, {"error": f"no route for {self.command} {path}"})

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def drop(self):
        self.close_connection = True
        self.connection.close()

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def find(self, kind: str, name: str) -> Repository | None:
        repository = self.hub.repositories.get((kind.removesuffix("s"), name))
        return None if repository is None or (repository.private and self.token is None) else repository


NO_REPOSITORY = (404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})


def whoami(request, body):
    if request.token not in (TOKEN, READ_ONLY_TOKEN):
        return 401, {"error": "Invalid username or password."}, {}
    return 200, {"type": "user", "name": "me", "orgs": [], "auth": {}}, {}


def create(request, body):
    if request.token != TOKEN:
        return 403, {"error": "You don't have the rights to create a model under this namespace"}, {}
    wanted = json.loads(body)
    kind = wanted.get("type") or "model"
    name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
    url = f"{request.hub.endpoint}/{'spaces/' if kind == 'space' else ''}{name}"
    if (kind, name) in request.hub.repositories:
        return 409, {"error": "You already created this repo", "url": url}, {}
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    request.hub.repositories[kind, name] = Repository(kind, private, wanted.get("sdk"))
    return 200, {"url": url, "name": name}, {}


def validate_yaml(request, body):
    content = json.loads(body)["content"]
    block = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
    try:
        metadata = yaml.safe_load(block.group(1)) if block else None
    except yaml.YAMLError as error:
        return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
    if metadata is not None and metadata.get("license") == "other" and "license_name" not in metadata:
        return 400, {"errors": [{"message": "license_name is required"}], "warnings": []}, {}
    return 200, {"errors": [], "warnings": [] if metadata else [{"message": "empty or missing yaml metadata"}]}, {}


def info(request, body, kind, name, revision=None):
    repository = request.find(kind, name)
    if repository is None:
        return NO_REPOSITORY
    if revision not in (None, repository.sha, *repository.branches):
        return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
    card = repository.files.get("README.md", b"").decode()
    block = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    metadata = yaml.safe_load(block.group(1)) if block else {}
    described = {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": repository.sha,
        "private": repository.private,
        "sdk": repository.sdk,
        "tags": metadata.get("tags", []),
        "cardData": metadata,
        "pipeline_tag": metadata.get("pipeline_tag"),
        "library_name": metadata.get("library_name"),
        "siblings": [{"rfilename": path} for path in repository.files],
        "downloads": 0,
        "likes": 0,
    }
    return 200, {key: value for key, value in described.items() if value is not None}, {}


def tree(request, body, kind, name, revision):
    repository = request.find(kind, name)
    if repository is None:
        return NO_REPOSITORY
    entries = [
        {"type": "file", "path": path, "size": len(content), "oid": oid_of(path, content)}
        for path, content in repository.files.items()
    ]
    return 200, entries, {}


def preupload(request, body, kind, name, revision):
    repository = request.find(kind, name)
    if repository is None:
        return NO_REPOSITORY
    answers = []
    for wanted in json.loads(body)["files"]:
        path = wanted["path"]
        entry = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
        if path in repository.files:
            entry["oid"] = oid_of(path, repository.files[path])
        answers.append(entry)
    return 200, {"files": answers}, {}


def lfs_batch(request, body, name, prefix=None):
    objects = []
    for wanted in json.loads(body)["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in request.hub.objects:
            entry["actions"] = {"upload": {"href": f"{request.hub.endpoint}/objects/{wanted['oid']}"}}
        objects.append(entry)
    return 200, {"transfer": "basic", "objects": objects}, {}


def set_faults(request, body):
    request.hub.faults = [Fault(*fault) for fault in json.loads(body)]
    return 200, {}, {}


def put_object(request, body, oid):
    if hashlib.sha256(body).hexdigest() != oid:
        return 400, {"error": "checksum does not match"}, {}
    request.hub.objects[oid] = body
    return 200, b"", {}


def commit(request, body, kind, name, revision):
    repository = request.find(kind, name)
    if repository is None:
        return NO_REPOSITORY
    if request.token != TOKEN:
        return 403, {"error": "Forbidden"}, {}
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repository.sha):
        return 412, {"error": "A commit has happened since. Please refresh and try again."}, {}
    url = f"{request.hub.endpoint}/{name}"
    if "create_pr=1" in request.path:
        repository.pull_requests.append(header["summary"])
        answer = {"commitUrl": f"{url}/commit/{'0' * 40}", "commitOid": "0" * 40}
        return 200, answer | {"pullRequestUrl": f"{url}/discussions/{len(repository.pull_requests)}"}, {}
    changed = dict(repository.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            changed[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            changed[value["path"]] = request.hub.objects[value["oid"]]
        else:
            del changed[value["path"]]
    repository.files = changed
    repository.commits.append({"title": header["summary"], "branch": revision})
    return 200, {"commitUrl": f"{url}/commit/{repository.sha}", "commitOid": repository.sha}, {}


def branch(request, body, kind, name, revision):
    repository = request.find(kind, name)
    if revision in repository.branches:
        return 409, {"error": "Reference already exists"}, {}
    repository.branches.add(revision)
    return 200, {}, {}


def resolve(request, body, name, revision, path, prefix=None):
    repository = request.find("space" if prefix else "model", name)
    if repository is None:
        return NO_REPOSITORY
    headers = {"X-Repo-Commit": repository.sha}
    if path not in repository.files:
        return 404, {"error": "Entry not found"}, headers | {"X-Error-Code": "EntryNotFound"}
    content = repository.files[path]
    return 200, content, headers | {"ETag": f'"{oid_of(path, content)}"', "Content-Type": "application/octet-stream"}


def oid_of(path: str, content: bytes) -> str:
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"(?P<name>[^/]+/[^/]+)"
KIND = r"/api/(?P<kind>models|spaces)/"

ROUTES: list[tuple[str, str, Callable]] = [
    ("POST", r"/faults", set_faults),
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("GET", f"{KIND}{NAME}", info),
    ("GET", f"{KIND}{NAME}/revision/(?P<revision>.+)", info),
    ("GET", f"{KIND}{NAME}/tree/(?P<revision>[^/]+)", tree),
    ("POST", f"{KIND}{NAME}/preupload/(?P<revision>.+)", preupload),
    ("POST", f"{KIND}{NAME}/branch/(?P<revision>.+)", branch),
    ("POST", f"{KIND}{NAME}/commit/(?P<revision>.+)", commit),
    ("POST", rf"/(?P<prefix>spaces/)?{NAME}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/objects/(?P<oid>[0-9a-f]{64})", put_object),
    ("GET", rf"/(?P<prefix>spaces/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
