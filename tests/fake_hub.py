"""A small model hub on this machine: what huggingface_hub asks of one to make, list, read and write a repository."""

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

TOKEN = "hf_writer"


@dataclass
class FakeHub:
    """`branches` of each repository, each a mapping of file names to bytes; commits keep what was there."""

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    url: str = ""

    def put(self, repo: str, files: dict[str, bytes], branch: str = "main") -> None:
        self.repos.setdefault(repo, {"main": {}})[branch] = files

    def commit_of(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision in self.commits:
            return revision, self.commits[revision]
        files = self.repos[repo].get(revision)
        if files is None:
            return None
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = dict(files)
        return sha, files


@contextmanager
def serving() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *words: Any) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._parts()
        repo = "/".join(parts[2:4]) if parts[:2] == ["api", "models"] else "/".join(parts[:2])
        if repo not in self.hub.repos or (self.hub.private.get(repo) and not self._writer()):
            self._fail(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
            return
        found = self.hub.commit_of(repo, self._revision(parts))
        if found is None:
            self._fail(404, "RevisionNotFound")
            return
        commit, files = found
        if parts[0] != "api":
            data = files.get("/".join(parts[4:]))
            if data is None:
                self._fail(404, "EntryNotFound")
            else:
                etag = hashlib.sha1(data).hexdigest()
                self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
        elif "tree" in parts:
            self._json(
                [
                    {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for n, d in files.items()
                ]
            )
        else:
            self._json(
                {"id": repo, "modelId": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            )

    def _revision(self, parts: list[str]) -> str:
        for word in ("revision", "tree", "resolve"):
            if word in parts:
                return parts[parts.index(word) + 1]
        return "main"

    def _writer(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        if not self._writer():
            status = 403 if self.headers.get("Authorization") else 401
            self._fail(status, "Forbidden" if status == 403 else "Unauthorized")
            return
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if repo in self.hub.repos:
                self._json({"url": f"{self.hub.url}/{repo}"}, 409)
                return
            self.hub.put(repo, {".gitattributes": b""})
            self.hub.private[repo] = bool(asked.get("private") or asked.get("visibility") == "private")
            self._json({"url": f"{self.hub.url}/{repo}"})
            return
        if parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
            return
        repo = "/".join(parts[2:4])
        if parts[4] == "branch":
            branches = self.hub.repos[repo]
            self._json({}, 409 if parts[5] in branches else 200)
            branches.setdefault(parts[5], dict(branches["main"]))
        elif parts[4] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4] == "commit":
            files = self.hub.repos[repo][parts[5]]
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "header":
                    self.hub.messages.append(line["value"]["summary"])
                elif line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            sha = self.hub.commit_of(repo, parts[5])
            assert sha is not None
            self._json({"success": True, "commitOid": sha[0], "commitUrl": f"{self.hub.url}/{repo}/commit/{sha[0]}"})
        else:
            self._fail(404, "NotFound")
