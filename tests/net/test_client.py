"""What goes wrong between client and server, as the error that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from helpers.running_server import TOKEN, run_asgi, run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine

from diffusion_core.config import ServerConfig
from diffusion_core.errors import (
    Closed,
    ConfigError,
    EngineError,
    Forbidden,
    InvalidRequest,
    ProtocolMismatch,
    Unauthorized,
    Unreachable,
)
from diffusion_core.net.client import HttpEngineClient, is_loopback, was_never_sent
from diffusion_core.net.protocol import CONTENT_TYPE, encode
from diffusion_core.net.server import create_app
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    FinishReason,
    PreviewFrame,
    Result,
)

REQUEST = CompletionRequest(prefix="abc", max_tokens=1)
EDIT = EditRequest(selection="abc", instruction="go", max_tokens=3)
FRAME = PreviewFrame(id="a", settled="", unsettled="")
RESULT = Result(id="a", text="x", finish_reason=FinishReason.STOP)


@contextlib.asynccontextmanager
async def raw_server(answer: bytes, *, end: Callable[[asyncio.StreamWriter], None] | None = None) -> AsyncIterator[str]:
    """A server that reads a request's head and sends these bytes, whatever was asked."""

    handling: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if end is None:
                await asyncio.sleep(0.05)
            else:
                end(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*handling)


def http(body: bytes, status: str = "200 OK", content_type: str = CONTENT_TYPE) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.asynccontextmanager
async def connected(url: str, **settings: float) -> AsyncIterator[HttpEngineClient]:
    client = HttpEngineClient(url, TOKEN, **settings)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (http(b"<html>", content_type="text/html"), ProtocolMismatch, "answers 200 with text/html: this is no Unmask"),
        (http(b"", "302 Found", "text/html"), ProtocolMismatch, "answers 302"),
        (http(b"Not Found", "404 Not Found", "text/plain"), ProtocolMismatch, "check client.url"),
        (http(b"", "401 Unauthorized", "text/html"), Unauthorized, "client.token"),
        (http(b"", "403 Forbidden", "text/html"), Forbidden, "client.url"),
        (http(b"", "407 Proxy Authentication Required", "text/html"), Unreachable, "asks for a login"),
        (http(b"", "413 Payload Too Large", "text/html"), InvalidRequest, "no request this large"),
        (http(b"", "502 Bad Gateway", "text/html"), Unreachable, "answers 502"),
        (http(b""), ProtocolMismatch, "an empty answer"),
        (http(b"\xc1"), ProtocolMismatch, "not a valid msgpack"),
        (http(encode(RESULT)[:-3]), ProtocolMismatch, "cut off"),
        (http(encode(RESULT) * 2), ProtocolMismatch, "more than one answer"),
        (http(encode(FRAME)), ProtocolMismatch, "unexpected message preview"),
        (http(msgpack.packb({"v": 3, "t": "result", "d": {}})), ProtocolMismatch, "protocol version 3"),
        (http(msgpack.packb({"v": 2, "t": "result", "d": {}})), ProtocolMismatch, "result.id: missing field"),
        (
            http(msgpack.packb({"v": 2, "t": "error", "d": {"code": "new", "message": "m", "retryable": False}})),
            EngineError,
            "m",
        ),
        (b"", Unreachable, "broke off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Unreachable, "broke off"),
        (http(encode(RESULT))[:-5], Unreachable, "broke off"),
    ],
)
async def test_answers_that_are_not_ours(answer: bytes, error: type[Exception], message: str) -> None:
    async with raw_server(answer) as url, connected(url) as client:
        with pytest.raises(error, match=message) as caught:
            await client.complete(REQUEST)
        assert type(caught.value) is error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (encode(FRAME), "ended the edit without a result"),
        (b"", "ended the edit without a result"),
        (encode(FRAME) + encode(RESULT) + encode(FRAME), "sent more after the result"),
    ],
)
async def test_edit_streams_that_are_not_complete(body: bytes, message: str) -> None:
    async with raw_server(http(body)) as url, connected(url) as client:
        with pytest.raises((Unreachable, ProtocolMismatch), match=message):
            async for item in client.edit(EDIT):
                assert item == FRAME


async def test_a_connection_reset_in_the_middle_of_an_edit() -> None:
    def reset(writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    answer = http(encode(FRAME) + b"x" * 100)[:-100]
    async with raw_server(answer, end=reset) as url, connected(url) as client:
        with pytest.raises(Unreachable, match="broke off") as caught:
            async for _ in client.edit(EDIT):
                pass
        assert not was_never_sent(caught.value)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with connected(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match=f"nothing answers at http://127.0.0.1:{port}") as caught:
            await client.health()
        assert was_never_sent(caught.value)
        with pytest.raises(Unreachable):
            async for _ in client.edit(EDIT):
                pass


async def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=5) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with connected(url, request_timeout_s=0.2) as client:
            with pytest.raises(Unreachable, match=r"sent nothing for 0\.2 s") as caught:
                await client.complete(REQUEST)
            assert not was_never_sent(caught.value)


async def test_the_wrong_token_is_refused_and_never_shown() -> None:
    with run_engine_server(ScriptedEngine()) as server:
        client = server.connect("not-the-t0ken")
        with pytest.raises(Unauthorized) as caught:
            await client.complete(REQUEST)
        with pytest.raises(Unauthorized):
            async for _ in client.edit(EDIT):
                pass
        assert "not-the-t0ken" not in f"{caught.value}{client!r}{client.address}"
        await client.aclose()


async def test_a_large_request_with_a_wrong_token_is_still_told_so() -> None:
    with run_engine_server(ScriptedEngine()) as server:
        client = server.connect("wrong")
        with pytest.raises(Unauthorized):
            await client.complete(CompletionRequest(prefix="x" * 6_000_000))
        await client.aclose()


async def test_the_environments_proxy_never_sees_a_loopback_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with run_engine_server(ScriptedEngine()) as server:
        client = server.connect()
        assert (await client.complete(REQUEST)).text == "cba"
        await client.aclose()


async def test_other_hosts_are_reached_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with raw_server(http(encode(RESULT))) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        async with connected("http://engine.invalid:80") as client:
            assert (await client.complete(REQUEST)) == RESULT


async def test_an_unusable_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://user:pass@127.0.0.1:9")
    client = HttpEngineClient("https://engine.invalid", TOKEN)
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
        await client.health()
    assert "pass" not in str(caught.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A self-signed certificate for 127.0.0.1, its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=unmask-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("ab") as file:
        file.write(Path(f"{path}.crt").read_bytes())
    yield path


async def test_a_private_authority_is_trusted_when_named_and_only_then(certificate: Path) -> None:
    app = create_app(ScriptedEngine(), ServerConfig(), TOKEN)
    with run_asgi(app, ssl_certfile=str(certificate), ssl_keyfile=str(certificate)) as address:
        client = HttpEngineClient(f"https://{address}", TOKEN, ca_file=str(certificate) + ".crt")
        assert (await client.complete(REQUEST)).text == "cba"
        await client.aclose()
        client = HttpEngineClient(f"https://{address}", TOKEN)
        with pytest.raises(Unreachable, match=r"set client\.ca_file"):
            await client.complete(REQUEST)
        await client.aclose()


async def test_an_unusable_certificate_file_is_named(tmp_path: Path) -> None:
    for name, content in (("missing.pem", None), ("empty.pem", b"no certificate")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        client = HttpEngineClient("https://127.0.0.1:1", TOKEN, ca_file=str(path))
        with pytest.raises(ConfigError, match=rf"client\.ca_file: cannot use .*{name}"):
            await client.health()
    assert issubclass(ssl.SSLError, OSError)


@pytest.mark.parametrize(
    "url",
    ["", "engine:8712", "ftp://a", "http://", "http://a:99999", "http://a:0", "http://user:pw@a", "http://a:b"],
)
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(ConfigError, match=r"client\.url") as caught:
        HttpEngineClient(url, TOKEN)
    assert "pw" not in str(caught.value)


def test_an_address_may_have_a_path() -> None:
    assert repr(HttpEngineClient("https://a.example/unmask/", "t0ken")) == (
        "HttpEngineClient('https://a.example/unmask', token=***)"
    )


def test_sending_code_unencrypted_to_another_machine_gets_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    HttpEngineClient("http://127.0.0.1:1", TOKEN)
    HttpEngineClient("https://a.example", TOKEN)
    assert not caplog.records
    HttpEngineClient("http://a.example", TOKEN)
    assert "not encrypted" in caplog.text


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a.b", False)],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_a_closed_client_says_so_and_breaks_off_what_is_under_way() -> None:
    engine = ScriptedEngine(forward_s=30)
    with run_engine_server(engine) as server:
        client = server.connect()
        task = asyncio.create_task(client.complete(REQUEST))
        await asyncio.to_thread(wait_until, lambda: engine.num_active == 1)
        await client.aclose()
        with pytest.raises((Unreachable, Closed)):
            await asyncio.wait_for(task, 5)
        with pytest.raises(Closed):
            await client.health()
        await asyncio.to_thread(wait_until, lambda: engine.num_cancelled == 1)


async def test_a_retired_client_closes_after_its_last_request() -> None:
    engine = ScriptedEngine(forward_s=0.2)
    with run_engine_server(engine) as server:
        client = server.connect()
        task = asyncio.create_task(client.complete(REQUEST))
        await asyncio.to_thread(wait_until, lambda: engine.num_active == 1)
        await client.retire()
        assert (await task).text == "cba"
        with pytest.raises(Closed):
            await client.health()


@pytest.mark.parametrize("module", ["protocol", "client", "launcher"])
def test_importing_the_client_side_is_light(module: str) -> None:
    """The language server imports it: no torch, no web framework, and httpx only with the first request."""
    code = f"import sys, diffusion_core.net.{module}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "starlette", "uvicorn", "httpx", "filelock", "pygls"} & set(modules)
