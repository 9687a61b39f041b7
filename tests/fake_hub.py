"""A Hub on this machine: the few requests that huggingface_hub makes to download and upload a repository of models."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """States by commit, oldest first, and the newest by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """What it says of files in place of the truth."""
    cut: set[str] = field(default_factory=set)
    """Files that arrive with their last byte missing, and a length that says so."""
    spoilt: set[str] = field(default_factory=set)
    """Files that arrive with their last byte changed."""

    def commit(self, files: Files) -> str:
        digest = sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = files
        return digest

    def at(self, revision: str) -> str | None:
        newest = next(reversed(self.commits), None)
        return newest if revision == "main" else revision if revision in self.commits else None


class Hub:
    """The repositories by name, and what was asked, as ``METHOD path``."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.logged_in = True

    def put(self, name: str, folder: Path) -> str:
        """A folder's files as a repository's newest state; its commit."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.repositories.setdefault(name, Repository()).commit(files)


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Yields the address at which it answers while the block lasts."""

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".pt", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.state.asked.append(f"{method} {path}")
        body = self._body()
        parts = path.split("/")
        if method == "PUT" and parts[0] == "large":
            self.state.stored[parts[1]] = body
            self._answer({})
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif path == "api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif parts[:2] == ["api", "models"]:
            self._of_a_model("/".join(parts[2:4]), parts[4:], body)
        else:
            self._resolve("/".join(parts[:2]), parts[2:], method)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    # -- what is there

    def _known(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit, else an answer that says what is missing."""
        repository = self.state.repositories.get(name)
        if repository is None or (repository.private and not self.state.logged_in):
            self._refuse(401 if repository else 404, "RepoNotFound")
        elif repository.gated:
            self._refuse(403, "GatedRepo")
        elif (commit := repository.at(revision)) is None and repository.commits:
            self._refuse(404, "RevisionNotFound")
        else:
            return repository, commit or ""
        return None

    def _of_a_model(self, name: str, rest: list[str], body: bytes) -> None:
        verb, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if verb in ("preupload", "commit"):
            (self._preupload if verb == "preupload" else self._commit)(name, body)
            return
        known = self._known(name, revision)
        if known is None:
            return
        repository, commit = known
        files = repository.commits.get(commit, {})
        if verb == "tree":
            self._answer([self._listed(repository, path, content, "tree") for path, content in files.items()])
            return
        siblings = [self._listed(repository, path, content, "info") for path, content in files.items()]
        self._answer({"id": name, "sha": commit, "private": repository.private, "siblings": siblings})

    def _listed(self, repository: Repository, path: str, content: bytes, form: str) -> dict[str, Any]:
        size = repository.sizes.get(path, len(content))
        blob = sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        large = {"size": size, "pointerSize": 130, "sha256" if form == "info" else "oid": sha256(content).hexdigest()}
        known: dict[str, Any] = {"rfilename": path, "size": size, "blobId": blob}
        if form == "tree":
            known = {"type": "file", "path": path, "size": size, "oid": blob}
        return {**known, **({"lfs": large} if _is_large(path) else {})}

    def _resolve(self, name: str, rest: list[str], method: str) -> None:
        known = self._known(name, rest[1]) if rest[:1] == ["resolve"] else None
        if known is None:
            return
        repository, commit = known
        path = "/".join(rest[2:])
        content = repository.commits[commit].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256(content).hexdigest()}"'}
        if method == "GET" and path in repository.cut:
            content = content[:-1]
        if path in repository.spoilt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(200, content, headers, body=method == "GET")

    # -- what is written

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self.state.logged_in:
            self._refuse(401, "")
        elif name in self.state.repositories:
            self._answer({"error": "it exists", "url": name}, 409)
        else:
            self.state.repositories[name] = Repository(asked.get("visibility") == "private")
            self._answer({"url": f"http://{self.headers['Host']}/{name}"})

    def _preupload(self, name: str, body: bytes) -> None:
        files = json.loads(body)["files"]
        modes = [(file["path"], "lfs" if _is_large(file["path"]) else "regular") for file in files]
        self._answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})

    def _batch(self, asked: dict[str, Any]) -> None:
        at = f"http://{self.headers['Host']}/large"
        objects = [{**file, "actions": {"upload": {"href": f"{at}/{file['oid']}"}}} for file in asked["objects"]]
        self._answer({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        repository = self.state.repositories[name]
        files = dict(repository.commits.get(repository.at("main") or "", {}))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files)
        self._answer({"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{commit}", "commitOid": commit})

    # -- answers

    def _answer(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)
