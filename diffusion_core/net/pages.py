"""The page: static files of this package. They are public and hold nothing secret; the page itself asks for a token.

A browser may load nothing else, from nowhere else: no inline code, no other site, no frame around it.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = "web"
_TYPES = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = MappingProxyType(
    {
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "cache-control": "no-cache",  # ask again, but do not send again: see the etag
    }
)


def _files(folder: Traversable, path: str) -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for item in folder.iterdir():
        name = f"{path}/{item.name}"
        if item.is_dir():
            found |= _files(item, name)
        elif name[name.rfind(".") :] in _TYPES:
            found[name] = item
    return found


def _find_pages() -> dict[str, Traversable]:
    files = _files(resources.files(__package__) / _FOLDER, f"/{_FOLDER}")
    return {"/": files.pop(f"/{_FOLDER}/index.html"), **files}


# Paths that need no token.
PAGE_PATHS = frozenset(_find_pages())


def page_routes() -> list[Route]:
    """A route for each file."""
    return [Route(path, _Page(path, file.read_bytes()).answer, methods=["GET"]) for path, file in _find_pages().items()]


class _Page:
    """One file."""

    def __init__(self, path: str, content: bytes) -> None:
        self._content = content
        kind = _TYPES[path[path.rfind(".") :]] if "." in path else _TYPES[".html"]
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        self._headers = {**_HEADERS, "content-type": kind, "etag": self._etag}

    async def answer(self, request: Request) -> Response:
        """The file, or that it is still the same."""
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)
