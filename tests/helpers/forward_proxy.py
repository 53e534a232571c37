"""A forward proxy on loopback: CONNECT for TLS, absolute addresses for the rest; it may ask for a login."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class ForwardProxy:
    """``seen`` holds the request lines; every host name leads to ``target`` (host, port)."""

    def __init__(self, target: tuple[str, int], login: str = "") -> None:
        self.seen: list[str] = []
        self.url = ""
        self._target = target
        self._login = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *headers = head.split("\r\n")
                self.seen.append(line)
                if self._login and not any(h.lower() == f"proxy-authorization: {self._login}".lower() for h in headers):
                    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                    await writer.drain()
                else:
                    await self._forward(line, headers, reader, writer)

    async def _forward(
        self, line: str, headers: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        async with _closing(server_writer):
            method, address, version = line.split(" ")
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [header for header in headers if not header.lower().startswith("proxy-")]
                server_writer.write("\r\n".join([f"{method} {urlsplit(address).path} {version}", *kept]).encode())
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def run_proxy(target: str, login: str = "") -> AsyncIterator[ForwardProxy]:
    """A running proxy; ``target`` is host:port."""
    host, _, port = target.rpartition(":")
    proxy = ForwardProxy((host, int(port)), login)
    running: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.ensure_future(proxy.handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
