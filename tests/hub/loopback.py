"""A hub on this machine, in memory: as much of the Hub's interface as the real ``huggingface_hub`` client asks for.

It knows one token, makes repositories, takes commits with regular and LFS files (whose sha256 it checks), branches and
commits as revisions, and serves files with the headers that the client's cache lives on. It proves neither xet nor gating.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
LFS_SUFFIXES = (".safetensors",)


class Refusal(Exception):
    """An answer other than 200, as the Hub words it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


@dataclass
class Repository:
    """Commits (sha → path → content), and branches (name → sha)."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        parent = self.branches.get(branch, "")
        listed = repr(sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items()))
        sha = hashlib.sha1(f"{parent} {listed}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str:
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha


@dataclass
class Hub:
    """What the server holds, and how it misbehaves when asked to.

    Attributes:
        url: its address. repositories: name → repository. objects: sha256 → content, of LFS uploads.
        cut: paths, or ``org/name/path``, whose download ends half-way. short: those of which the first half is sent as if it
            were all. garbled: those of which other bytes are sent. drop: the connection ends when half of the body of a request
            of this kind ("objects") has come. refuse: requests of this kind ("commit") are answered by 400.
        hold: requests of this kind ("commit", "objects") are not answered until ``release`` is set; ``held`` says that one came.
        requests: "METHOD path" of every request, in order.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    garbled: set[str] = field(default_factory=set)
    drop: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)
    hold: set[str] = field(default_factory=set)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)

    def wait(self, kind: str) -> None:
        """Keeps a request of a kind that is to be held."""
        if kind in self.hold:
            self.held.set()
            self.release.wait(timeout=120)
            raise Refusal(400, "", "too late")

    def uploads(self) -> int:
        """How many contents were sent so far."""
        return sum(request.startswith("PUT objects/") for request in self.requests)

    def repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return self.repositories[name]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repository(name)
        return repository.commits[repository.find(revision)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        path, length = unquote(urlsplit(self.path).path).strip("/"), int(self.headers.get("Content-Length") or 0)
        if path.split("/")[0] in self.hub.drop:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            self._route(path.split("/"), body)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._answer({"error": refusal.message}, refusal.status, headers)

    def _route(self, parts: list[str], body: bytes) -> None:
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}" and parts[0] != "objects":
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        writes = self.command in ("POST", "PUT") and parts[0] != "objects" and parts[1:2] != ["validate-yaml"]
        if writes and given is None:
            raise Refusal(401, "", "Invalid username or password.")
        match parts:
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._answer({"errors": [], "warnings": []})
            case ["api", "models", owner, name, "preupload", _]:
                self.hub.repository(f"{owner}/{name}")
                self._preupload(json.loads(body))
            case ["api", "models", owner, name, "branch", branch]:
                self._branch(f"{owner}/{name}", branch)
            case ["api", "models", owner, name, "commit", branch]:
                self._commit(f"{owner}/{name}", branch, body)
            case ["api", "models", owner, name]:
                self._describe(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self._describe(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision, *_]:
                self._tree(f"{owner}/{name}", revision)
            case [owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self._batch(json.loads(body))
            case ["objects", digest]:
                self._take(digest, body)
            case [owner, name, "resolve", revision, *path]:
                self._resolve(f"{owner}/{name}", revision, "/".join(path))
            case _:
                raise Refusal(404, "", f"the loopback hub has no {self.command} {'/'.join(parts)}")

    def _answer(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(data).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
        found = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            self._answer(found | {"error": "You already created this model repo"}, 409)
            return
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        repository = self.hub.repositories[name] = Repository(private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._answer(found)

    def _preupload(self, wanted: dict[str, Any]) -> None:
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
            }
            for each in wanted["files"]
        ]
        self._answer({"files": files})

    def _batch(self, wanted: dict[str, Any]) -> None:
        answers = []
        for each in wanted["objects"]:
            answer: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}", "header": {}}}
            answers.append(answer)
        self._answer({"transfer": "basic", "objects": answers})

    def _branch(self, name: str, branch: str) -> None:
        branches = self.hub.repository(name).branches
        if branch in branches:
            raise Refusal(409, "", "Reference already exists")
        branches[branch] = branches["main"]
        self._answer({})

    def _take(self, digest: str, body: bytes) -> None:
        self.hub.wait("objects")
        if hashlib.sha256(body).hexdigest() != digest:
            raise Refusal(400, "", "the content has another sha256")
        self.hub.objects[digest] = body
        self._answer({})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        self.hub.wait("commit")
        if "commit" in self.hub.refuse:
            raise Refusal(400, "", "no commits today")
        repository = self.hub.repository(name)
        files = dict(repository.commits[repository.find(branch)])
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(branch, files)
        self._answer({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _readable(self, name: str) -> Repository:
        repository = self.hub.repository(name)
        if repository.private and self.headers.get("Authorization") is None:
            raise Refusal(401, "RepoNotFound", "Repository not found")
        return repository

    def _describe(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        sha = repository.find(revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in repository.commits[sha]]
        for each in siblings:
            if each["rfilename"].endswith(LFS_SUFFIXES):
                content = repository.commits[sha][each["rfilename"]]
                digest = hashlib.sha256(content).hexdigest()
                each["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        self._answer({"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})

    def _tree(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        rows = []
        for path, content in repository.commits[repository.find(revision)].items():
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _etag(path, content)}
            if path.endswith(LFS_SUFFIXES):
                row["lfs"] = {"oid": _etag(path, content), "size": len(content), "pointerSize": 134}
            rows.append(row)
        self._answer(rows)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        sha = repository.find(revision)
        if path not in repository.commits[sha]:
            raise Refusal(404, "EntryNotFound", f"Entry not found: {path}")
        content = repository.commits[sha][path]
        etag = _etag(path, content)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if path.endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        start, status = 0, 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and self.command == "GET":
            start, status = int(wanted.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        ill = {path, f"{name}/{path}"}
        if self.command == "GET" and ill & self.hub.short:
            content = content[: len(content) // 2]
        if ill & self.hub.garbled:
            content = bytes(byte ^ 255 for byte in content)
        self._head(status, headers | {"Content-Length": str(len(content) - start)})
        if self.command == "HEAD":
            return
        if ill & self.hub.cut:
            self.wfile.write(content[start : len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(content[start:])


def _etag(path: str, content: bytes) -> str:
    """sha256 of an LFS file; git's name of the content of any other."""
    if path.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers on a free port of this machine until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
