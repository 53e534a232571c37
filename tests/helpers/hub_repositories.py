"""A model hub on loopback that lists whole repositories with their hashes and serves their files, with ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "feedface" * 5


@dataclass
class RepositoryHub:
    """Repositories as file contents by name; files that end in .safetensors are "large", with a sha256.

    ``cut_after``: how many bytes each of the next answers with a file sends before the connection breaks.
    """

    repositories: dict[str, dict[str, bytes]]
    cut_after: list[int] = field(default_factory=list)
    fetched: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def listing(self, repo: str) -> dict[str, Any]:
        siblings = []
        for name, content in self.repositories[repo].items():
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
            siblings.append(entry)
        return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


@contextmanager
def run_repository_hub(repositories: dict[str, dict[str, bytes]]) -> Iterator[RepositoryHub]:
    """Serve until the end of the block."""
    hub = RepositoryHub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            for repo, files in hub.repositories.items():
                if path == f"/api/models/{repo}/revision/main":
                    self.send(json.dumps(hub.listing(repo)).encode(), "application/json")
                    return
                prefix = f"/{repo}/resolve/{COMMIT}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in files:
                    name = path.removeprefix(prefix)
                    hub.fetched.append((name, self.headers.get("Range", "")))
                    self.send(files[name], "application/octet-stream", may_cut=True)
                    return
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content: bytes, kind: str, may_cut: bool = False) -> None:
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if may_cut and hub.cut_after:
                self.wfile.write(body[: hub.cut_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
