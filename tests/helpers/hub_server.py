"""A little model hub on loopback that speaks what a download needs: HEAD with the announced hash, GET with ranges."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPO = "someone/tiny-GGUF"
COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """What the hub holds and how it misbehaves.

    ``cut_after``: how many bytes each of the next GET answers sends before the connection breaks.
    """

    content: bytes
    announced: str = ""
    cut_after: list[int] = field(default_factory=list)
    ignore_range: bool = False
    status: int = 200
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    tokens_at_hub: list[str] = field(default_factory=list)
    tokens_at_storage: list[str] = field(default_factory=list)
    url: str = ""
    storage_url: str = ""

    @property
    def sha256(self) -> str:
        return self.announced or hashlib.sha256(self.content).hexdigest()


@contextmanager
def run_hub(content: bytes) -> Iterator[Hub]:
    """Serve ``content`` as tiny.gguf of :data:`REPO`; files are redirected to another host, as a real hub does."""
    hub = Hub(content)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(send_body=False)

        def do_GET(self) -> None:
            self.answer(send_body=True)

        def answer(self, send_body: bool) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
            if hub.status != 200 or self.path not in (f"/{REPO}/resolve/main/tiny.gguf", "/storage/object"):
                self.send_response(hub.status if hub.status != 200 else 404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path.startswith(f"/{REPO}"):
                hub.tokens_at_hub.append(self.headers.get("Authorization", ""))
                self.send_response(302)
                self.send_header("Location", f"{hub.storage_url}/storage/object")
                self.send_header("X-Linked-Etag", f'"{hub.sha256}"')
                self.send_header("X-Linked-Size", str(len(hub.content)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_object(send_body)

        def send_object(self, send_body: bool) -> None:
            hub.tokens_at_storage.append(self.headers.get("Authorization", ""))
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not hub.ignore_range else 0
            body = hub.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not send_body:
                return
            if hub.cut_after:
                self.wfile.write(body[: hub.cut_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage_url = f"http://localhost:{server.server_port}"  # another host, as real hubs' storage is
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
