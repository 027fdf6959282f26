"""As much of the Hugging Face hub as pushing and pulling small files needs, on this machine: nobody else is asked."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """The repositories, and what was asked.

    Attributes:
        files: contents by (repository, path).
        seen: "METHOD path" of every request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[tuple[str, str], bytes] = {}
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers inside the block."""
    hub = Hub()
    Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self, content: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, code: int = 200) -> None:
        self._answer(json.dumps(value).encode(), code, Content_Type="application/json")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        self.server.seen.append(f"POST {self.path}")
        body = self._body()
        if self.headers.get("Authorization") != "Bearer stub":
            self._json({"error": "who are you?"}, 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self._json({"url": f"{self.server.address}/{asked.get('organization', 'me')}/{asked['name']}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                        for one in files
                    ]
                }
            )
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[name, value["path"]] = base64.b64decode(value["content"])
            self._json({"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._json({"error": "no such thing"}, 404)

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        content = self.server.files.get((name, rest.partition("/")[2]))
        if content is None:
            if self.path.startswith("/api/models/"):
                model = self.path.removeprefix("/api/models/").partition("/revision/")[0]
                kept = [path for repository, path in self.server.files if repository == model]
                self._json({"id": model, "sha": COMMIT, "siblings": [{"rfilename": path} for path in kept]})
                return
            self._answer(b"", 404, X_Error_Code="RepoNotFound")
            return
        tag = hashlib.sha256(content).hexdigest()
        self._answer(content, ETag=f'"{tag}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")

    do_HEAD = do_GET  # noqa: N815 (the library's name)
